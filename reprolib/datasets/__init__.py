"""Datasets: one module per dataset, each of which provides a ``Split(train, query, gallery)``."""

import hashlib
import warnings
from copy import deepcopy
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from reprolib import paths
from reprolib.datasets import cifar10, dukemtmc_reid, dukemtmc_videoreid, market1501, mars
from reprolib.datasets.archives import DatasetError
from reprolib.datasets.checking import Report, count, require_usable, samples_per_identity, unreadable_images, unusable
from reprolib.datasets.folders import locate, printable
from reprolib.datasets.published import SOURCES
from reprolib.datasets.split import LabelledTracklets, Split, Tracklets

__all__ = [
    "NAMES",
    "DatasetError",
    "LabelledTracklets",
    "Split",
    "Tracklets",
    "check",
    "fingerprint",
    "identities_fingerprint",
    "load_dataset",
    "require_usable",
    "summarize",
]

READERS = {
    "market1501": market1501.read,
    "dukemtmc-reid": dukemtmc_reid.read,
    "mars": mars.read,
    "dukemtmc-videoreid": dukemtmc_videoreid.read,
    "cifar10": cifar10.read,
}
NAMES = ("synthetic", "synthetic-video", *READERS)
SHUFFLE_SEED = 2019  # one order for all runs; the seed of a run does not affect it


def load_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    train_order: Literal["shuffled", "sorted"] = "shuffled",
    junk: Literal["left_out", "in_gallery"] = "left_out",
) -> Split:
    """Load a dataset for training and evaluation.

    If only the published archive exists, it is first unpacked beside itself. If the counts differ from the published
    ones, there is a warning but no error, because part of a dataset is useful too.

    Args:
        name: one of ``NAMES``.
        root: folder of the datasets, or of this dataset; None means ``$REPROLIB_DATA``, else ``data/``.
        train_order: "shuffled", so that the order reveals nothing about identities; or "sorted" by identity, as in the
            released programs, only to show what that order gives away.
        junk: what to do with Market-1501's junk images: "left_out", as in the archives of both programs' authors, or
            "in_gallery", as in the papers' count of 19,732, where each is a wrong answer to every query.

    Raises:
        ValueError: an unknown name or order, or junk for a dataset that has none.
        DatasetError: the dataset is missing, incomplete or damaged; the message names the paths and the remedy.
    """
    if name not in NAMES:
        raise ValueError(f"dataset {name!r} is not one of {', '.join(NAMES)}")
    if train_order not in ("shuffled", "sorted"):
        raise ValueError(f"train_order {train_order!r} is not one of shuffled, sorted")
    if junk not in ("left_out", "in_gallery") or (junk == "in_gallery" and name != "market1501"):
        raise ValueError(f"junk {junk!r} of {name} is not one of left_out, or in_gallery (only for market1501)")
    split = _load(name, root) if name in READERS else _synthesize(name)
    if junk == "in_gallery":
        split = market1501.with_junk(split, locate(SOURCES[name], paths.data_root(root)))
    if train_order == "sorted":
        return split.sort()
    return split.shuffle(seed=SHUFFLE_SEED)


def _synthesize(name: str) -> Split:
    return deepcopy(_painted(name))  # a copy that the caller may change


@cache
def _painted(name: str) -> Split:
    from reprolib.datasets import synthetic  # only needed for these datasets

    return synthetic.load_synthetic(name)


def _load(name: str, root: str | Path | None) -> Split:
    source, problems = SOURCES[name], []
    folder = locate(source, paths.data_root(root))
    split = READERS[name](folder, problems)
    if problems:
        lines = [f"{source.title} cannot be used as it is: {len(problems):,} problem(s)", *problems[:5]]
        where = f" --data-root {root}" if root else ""
        raise DatasetError(printable("\n  ".join([*lines, f"run `reprolib check-data {name}{where}` for details"])))
    there = count(split, has_distractors=source.has_distractors)
    if there == source.counts:
        return split
    others = [f"{k} has {there[k]}; published: {v}" for k, v in source.counts.items() if there[k] != v]
    warnings.warn("\n  ".join([f"{folder}: {source.title} is not as published", *others]), stacklevel=3)
    return replace(split, images=", ".join(filter(None, [split.images, "not as published"])))


def check(name: str, root: str | Path | None = None, *, deep: bool = False) -> Report:
    """Report which parts of a dataset exist, what is missing or does not belong, and where to get it.

    With ``deep`` every image is decoded.

    Raises:
        ValueError: an unknown name, or that of a synthetic dataset, which is generated and needs no files.
    """
    if name not in SOURCES:
        raise ValueError(f"dataset {name!r} is not one of {', '.join(SOURCES)}")
    source, folder, counts, problems = SOURCES[name], None, {}, []
    try:
        folder = locate(source, paths.data_root(root))
        split = READERS[name](folder, problems)
        counts = count(split, has_distractors=source.has_distractors)
        problems += [] if problems else unusable(split)
        problems += unreadable_images(split) if deep else []
    except DatasetError as error:
        problems.append(str(error))
    return Report(source, folder, counts, tuple(problems))


def summarize(split: Split) -> dict:
    """Count [identities, samples, cameras] of each set (DBC Table I) and training samples per identity (Fig. 1)."""
    has_distractors = SOURCES[split.name].has_distractors if split.name in SOURCES else True
    counts = {part: list(astuple(c)) for part, c in count(split, has_distractors=has_distractors).items()}
    return {"counts": counts, "samples_per_identity": samples_per_identity(split)}


def fingerprint(tracklets: Tracklets, *, labels: bool = False, written: bool = False) -> str:
    """Return 16 hex digits that change when a frame is added, removed, resized, renamed or moved.

    Files are identified by folder, name and size (their content is not read), pixels by their bytes. The order matters,
    because data cached under this key is in that order. ``labels`` includes cameras and identities. ``written``
    includes the modification times of files, so that replacing a file by one of the same size is noticed; these times
    differ between machines.
    """
    digest = hashlib.blake2b(tracklets.starts.astype("<i8").tobytes(), digest_size=8)
    for ids in (tracklets.camids, tracklets.pids) if labels else ():
        digest.update(ids.astype("<i8").tobytes())
    if isinstance(tracklets.frames, np.ndarray):
        digest.update(repr(tracklets.frames.shape).encode())
        digest.update(np.ascontiguousarray(tracklets.frames))
    else:
        for file in tracklets.frames:
            size, time = _size_and_time(file)
            name = f"{file.parent.name}/{file.name}/{size}\n" + (f"{time}\n" if written else "")
            digest.update(name.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _size_and_time(file: Path) -> tuple[int, int]:
    """Return the size in bytes and the modification time in nanoseconds."""
    try:
        status = file.stat()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror}); restore it, or leave it out") from error
    return status.st_size, status.st_mtime_ns


def identities_fingerprint(split: Split) -> str:
    """Return 16 hex digits that change with the training identities (for diagnosis and the supervised upper bound)."""
    return hashlib.blake2b(split.train_pids.astype("<i8").tobytes(), digest_size=8).hexdigest()
