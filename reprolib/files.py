"""Files and folders that have their name when all is in them, and locks for those who make them."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FolderError(ValueError):
    """A folder that cannot be written to; the message names it and the remedy."""


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def replacing(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """Where to write a file or folder that takes the place of ``target`` when the block ends.

    Written, flushed, renamed: a reader sees the old content or the new, never half of it. Nothing is left behind when
    the block fails, and what a killed process left goes when the target is written again or discarded. The name ends
    in ``.partial``: give numpy an open file, or it adds a suffix of its own. ``shared``: no lock keeps others from
    writing it at the same time, and what a killed process left stays.

    Raises:
        FolderError: the disk is full, or the folder may not be written to.
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
    """Remove a file or folder, and what a process that was killed while it wrote it left."""
    _remove(target)
    _remove(_scratch(target))


def slug(text: str) -> str:
    """A file's name: the words of a text, ASCII letters and digits alone; a long one is cut, and ends in its digest."""
    words = "_".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())
    if len(words) <= 80:
        return words
    return f"{words[:71]}_{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


@contextmanager
def locked(target: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold ``<target>.lock``; another process that asks for it waits. The lock of a dead process is free.

    Raises:
        Busy: another process holds it, and ``wait`` is False.
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
            f"{folder}: cannot be written to ({error}); make room or give leave to write there, then give the same "
            "command again: what was saved is whole and is gone on from"
        ) from error


def _scratch(target: Path, owner: str = "") -> Path:
    return target.with_name(f"{target.name}{owner}.partial")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # who writes there is told what is wrong
            path.unlink()


def _flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
