"""Archives, opened as if a stranger had made them."""

import gzip
import lzma
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from reprolib.files import FolderError, locked

SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar.xz", ".tar")
MAX_MEMBERS = 3_000_000  # MARS, the largest, has 1.2 million
MAX_BYTES = 64 * 2**30
MAX_RATIO = 20  # unpacked / packed; images hardly shrink, a bomb shrinks a thousandfold
DAMAGE = (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class DatasetError(ValueError):
    """A dataset that cannot be used as it is; the message names the path and the remedy."""


def present(folder: Path) -> bool:
    """Whether ``folder`` is there, unpacking its archive (``folder.zip``, ...) beside it where only that is there."""
    if not folder.is_dir():
        archives = (folder.with_name(folder.name + suffix) for suffix in SUFFIXES)
        archive = next((a for a in archives if a.is_file()), None)
        if archive is None:
            return False
        unpack(archive, folder)
    return True


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into ``folder``, which appears once it is whole.

    If the archive has a folder of that name at its top, that is the one; otherwise all it holds.

    Raises:
        DatasetError: it is damaged, or holds what no dataset does: a path that leads out of the folder, a link, a
            device, more files or bytes than the limits above.
    """
    try:
        with locked(folder):
            if not folder.is_dir():  # no other process was faster
                print(f"Unpacking {archive} ...", file=sys.stderr, flush=True)
                _unpack(archive, folder)
    except (*DAMAGE, FolderError) as error:
        remedy = "see that there is room and may be written, or download it again"
        raise DatasetError(f"{archive}: cannot be unpacked ({error}); {remedy}") from error


def _unpack(archive: Path, folder: Path) -> None:
    content = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(content, ignore_errors=True)  # of a process that was killed
        content.mkdir()
        _extract(archive, content)
        top = content / folder.name
        (top if top.is_dir() else content).rename(folder)
    finally:
        shutil.rmtree(content, ignore_errors=True)


@contextmanager
def open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive to be read once, front to back."""
    # tarfile's own decompression takes a file that was cut off for one that ends.
    decompress = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}.get(archive.suffix, open)
    with decompress(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as file:
        yield file


def _extract(archive: Path, into: Path) -> None:
    limit = min(MAX_BYTES, MAX_RATIO * archive.stat().st_size)
    total = 0
    for count, (name, size, is_folder, is_plain, open_member) in enumerate(_members(archive), start=1):
        total += size
        if count > MAX_MEMBERS or total > limit:
            raise DatasetError(
                f"{archive}: refused, for it unpacks to more than {MAX_MEMBERS:,} files or {limit:,} bytes; "
                "check where it is from, then unpack it by hand"
            )
        path = PurePosixPath(name.replace("\\", "/"))
        if not is_plain or path.is_absolute() or ".." in path.parts or ":" in name:
            raise DatasetError(
                f"{archive}: refused, for {name!r} is a link or leads out of the folder; download it from its authors"
            )
        target = into / path
        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_member() as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink)


def _members(archive: Path) -> Iterator[tuple[str, int, bool, bool, Callable[[], IO[bytes]]]]:
    """Name, bytes, whether a folder, whether a folder or plain file, and how to open it, in the archive's order."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive was made on Windows
                is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                yield member.filename, member.file_size, member.is_dir(), is_plain, partial(file.open, member)
    else:
        with open_tar(archive) as file:
            for member in file:
                is_plain = member.isfile() or member.isdir()
                yield member.name, member.size, member.isdir(), is_plain, partial(file.extractfile, member)
