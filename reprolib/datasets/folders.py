"""Folders of images: the location of a dataset, the files that belong to it, and the tracklets made of them.

Problems are collected in a list, so that the user is told about all of them at once.
"""

import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from reprolib.datasets.archives import DatasetError, present
from reprolib.datasets.published import Source
from reprolib.datasets.split import LabelledTracklets, Split, Tracklets

IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}  # made by Windows and macOS, like names that begin with a dot
Samples = list[tuple[Sequence[Path], int, int]]  # frames, pid, camid of each tracklet


def locate(source: Source, root: Path) -> Path:
    """Find the folder of the dataset: below ``root``, one level further down, or ``root`` itself; unpack it if needed.

    Raises:
        DatasetError: the dataset is in none of these places.
    """
    if root.is_file():
        raise DatasetError(f"{root}: not a folder; set --data-root or REPROLIB_DATA to the folder that contains it")
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; set --data-root or REPROLIB_DATA to the folder of the datasets")
    below = [root / name for name in source.folders]
    for place in (*below, *(folder / name for folder in below for name in source.folders), root):
        is_named = place.name in source.folders
        if is_named and not present(place):
            continue
        if any((place / name).exists() for name in source.alternatives):
            return place
        # A folder with another name must have all parts, unpacked: other folders may also have "train" or train.zip.
        found = [present(place / part) if is_named else (place / part).is_dir() for part in source.parts]
        if any(found) if is_named else all(found):
            return place
    if there := [part for part in source.parts if (root / part).is_dir()]:
        missing = ", ".join(part for part in source.parts if part not in there)
        remedy = "unpack the archive again, or make a Split from the existing images"
        raise DatasetError(f"{root}: has {', '.join(there)}, but no {missing}; {remedy}")
    wanted = " or ".join(source.folders)
    parts = " or ".join([", ".join(source.parts), *source.alternatives])
    raise DatasetError(
        f"{root}: contains no folder {wanted} (or its .zip) with {parts}. Where to get {source.title}: {source.origin}"
    )


def image_files(folder: Path, pattern: re.Pattern, problems: list[str]) -> list[tuple[Path, re.Match]]:
    """Return the images of one folder in the order of their names, each with the match of ``pattern`` in its name."""
    found = []
    for entry in _entries(folder, problems):
        match = pattern.fullmatch(entry.name)
        if match is None:
            problems.append(
                f"{entry.path}: this dataset has no files with such names; move it elsewhere (for your own images "
                "make a Split)"
            )
        elif _is_empty(entry):
            problems.append(f"{entry.path}: empty or unreadable; extract it from the dataset's archive again")
        else:
            found.append((Path(entry.path), match))
    return found


def subfolders(folder: Path, problems: list[str]) -> list[Path]:
    """Return the folders within ``folder`` in the order of their names."""
    found = []
    for entry in _entries(folder, problems):
        path = Path(entry.path)
        if path.is_dir():  # unlike entry.is_dir(), False for circular links
            found.append(path)
        else:
            problems.append(f"{entry.path}: a file where this dataset has folders; move it elsewhere")
    return found


def _entries(folder: Path, problems: list[str]) -> list[os.DirEntry]:
    if not folder.is_dir():
        problems.append(f"{folder}: missing; unpack the dataset's archive again")
        return []
    try:
        with os.scandir(folder) as listing:
            entries = [e for e in listing if not e.name.startswith(".") and e.name.lower() not in IGNORED]
    except OSError as error:
        problems.append(f"{folder}: cannot be read ({error.strerror}); make it readable")
        return []
    if not entries:
        problems.append(f"{folder}: empty; unpack the dataset's archive again")
    return sorted(entries, key=lambda entry: entry.name)


def _is_empty(entry: os.DirEntry) -> bool:
    try:
        return entry.stat().st_size == 0
    except OSError:  # a broken link, or a folder without permission
        return True


def printable(text: str) -> str:
    """Return the text with undecodable bytes of file names written as escapes."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def labelled(samples: Samples) -> LabelledTracklets:
    """Make tracklets in the given order."""
    lengths = [len(frames) for frames, _, _ in samples]
    return LabelledTracklets(
        frames=tuple(chain.from_iterable(frames for frames, _, _ in samples)),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        camids=np.array([camid for _, _, camid in samples], dtype=np.int64),
        pids=np.array([pid for _, pid, _ in samples], dtype=np.int64),
    )


def make_split(name: str, *, train: LabelledTracklets, query: LabelledTracklets, gallery: LabelledTracklets) -> Split:
    """Make a Split, with the training identities kept separately."""
    unlabelled = Tracklets(train.frames, train.starts, train.camids)
    return Split(name, unlabelled, query, gallery, train_pids=train.pids)


def image_split(name: str, folder: Path, pattern: re.Pattern, problems: list[str]) -> Split:
    """Read a dataset in Market-1501's layout; ``pattern`` gives pid and camera (from 1). Junk (pid -1) is left out."""
    sets = []
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        files = image_files(folder / part, pattern, problems)
        samples = [((path,), int(match[1]), int(match[2]) - 1) for path, match in files if match[1] != "-1"]
        sets.append(labelled(samples))
    return make_split(name, train=sets[0], query=sets[1], gallery=sets[2])
