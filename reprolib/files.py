"""Files and folders that have their name when all is in them, and locks for those who make them."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class FolderError(ValueError):
    """A folder that cannot be written to; the message names it and the remedy."""


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def replacing(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """Where to write a file or folder that takes the place of ``target`` when the block ends.

    Written, flushed, renamed: a reader sees the old content or the new, never half of it. Nothing is left behind when
    the block fails, and what a killed process left goes when the target is written again. ``shared``: no lock keeps
    others from writing it at the same time.

    Raises:
        FolderError: the disk is full, or the folder may not be written to.
    """
    scratch = target.with_name(f"{target.name}{f'.{os.getpid()}' if shared else ''}.partial")
    try:
        with _explained(target.parent):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            yield (written := scratch / target.name)
            for file in written.iterdir() if written.is_dir() else [written]:
                _flush(file)
            written.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"{folder}: cannot be written to ({error}); make room or give leave to write there, then give the same "
            "command again: what was saved is whole and is gone on from"
        ) from error


def _flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
