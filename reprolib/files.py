"""Atomic writes: a file or folder gets its name only when it is complete. Lock files protect it while it is written."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FolderError(ValueError):
    """A folder is not writable; the message names the folder and the remedy."""


class Busy(Exception):
    """The lock is held by another process."""


@contextmanager
def replacing(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file or folder that replaces ``target`` when the block ends.

    The content is written, flushed and renamed, so that a reader sees either the old content or the new one, never
    part of it. If the block fails, nothing is left behind. If the process is killed, its temporary file is removed when
    the target is written again or discarded. The temporary name ends in ``.partial``; pass numpy an open file, because
    it would append its own suffix to the name. With ``shared`` several processes may write the target at the same time
    without a lock; the temporary file of a killed process then stays.

    Raises:
        FolderError: the disk is full, or the folder is not writable.
    """
    scratch = _scratch(target, f".{os.getpid()}" if shared else "")
    try:
        with _explained(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(scratch)
            yield scratch
            for file in scratch.iterdir() if scratch.is_dir() else [scratch]:
                _flush(file)
            scratch.replace(target)
    finally:
        _remove(scratch)


def discard(target: Path) -> None:
    """Remove a file or folder, and the temporary file that a killed process left while writing it."""
    _remove(target)
    _remove(_scratch(target))


def slug(text: str) -> str:
    """Return a file name made of a text's ASCII letters and digits; a long name is cut and ends in a digest."""
    words = "_".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())
    if len(words) <= 80:
        return words
    return f"{words[:71]}_{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


@contextmanager
def locked(target: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``<target>.lock``; other processes that want it wait. The lock of a dead process is free.

    Raises:
        Busy: another process holds the lock, and ``wait`` is False.
        FolderError: as for :func:`replacing`.
    """
    with _explained(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.with_name(f"{target.name}.lock").open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise Busy(target.name) from error
            print(f"{target.name}: another process is at it; waiting for its result", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{folder}: cannot be written to ({error}); free some space or make it writable, then run the same command "
            "again (without --fresh): it resumes from what was saved"
        ) from error


def _scratch(target: Path, owner: str = "") -> Path:
    return target.with_name(f"{target.name}{owner}.partial")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # whoever writes there will get the error
            path.unlink()


def _flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
