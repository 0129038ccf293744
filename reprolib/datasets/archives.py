"""Archives, opened as untrusted files."""

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
MAX_RATIO = 20  # unpacked / packed; images hardly compress, while an archive bomb compresses a thousandfold
DAMAGE = (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class DatasetError(ValueError):
    """A dataset cannot be used as it is; the message names the path and the remedy."""


def present(folder: Path) -> bool:
    """Return whether ``folder`` exists; if only its archive (``folder.zip``, ...) exists, unpack it first."""
    if not folder.is_dir():
        archives = (folder.with_name(folder.name + suffix) for suffix in SUFFIXES)
        archive = next((a for a in archives if a.is_file()), None)
        if archive is None:
            return False
        unpack(archive, folder)
    return True


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into ``folder``, which appears only when it is complete.

    If the archive has a top-level folder of that name, only that folder is used; otherwise the whole content.

    Raises:
        DatasetError: the archive is damaged, or contains something that no dataset has: a path that leads out of the
            folder, a link, a device, or more files or bytes than the limits above.
    """
    try:
        with locked(folder):
            if not folder.is_dir():  # no other process has unpacked it meanwhile
                print(f"Unpacking {archive} ...", file=sys.stderr, flush=True)
                _unpack(archive, folder)
    except (*DAMAGE, FolderError) as error:
        remedy = "check that there is free space and that the folder is writable, or download it again"
        raise DatasetError(f"{archive}: cannot be unpacked ({error}); {remedy}") from error


def _unpack(archive: Path, folder: Path) -> None:
    content = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(content, ignore_errors=True)  # left by a killed process
        content.mkdir()
        _extract(archive, content)
        top = content / folder.name
        (top if top.is_dir() else content).rename(folder)
    finally:
        shutil.rmtree(content, ignore_errors=True)


@contextmanager
def open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive for reading once, from front to back."""
    # tarfile's own decompression does not notice a truncated file.
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
                f"{archive}: refused, because it unpacks to more than {MAX_MEMBERS:,} files or {limit:,} bytes; "
                "check where it comes from, then unpack it by hand"
            )
        path = PurePosixPath(name.replace("\\", "/"))
        if not is_plain or path.is_absolute() or ".." in path.parts or ":" in name:
            raise DatasetError(
                f"{archive}: refused, because {name!r} is a link or leads out of the folder; download it from its "
                "authors"
            )
        target = into / path
        if is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_member() as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink)


def _members(archive: Path) -> Iterator[tuple[str, int, bool, bool, Callable[[], IO[bytes]]]]:
    """Yield name, bytes, whether it is a folder, whether a folder or plain file, and a way to open it, in order."""
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
