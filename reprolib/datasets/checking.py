"""Checks of a dataset against the published version."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from reprolib.datasets.archives import DatasetError
from reprolib.datasets.folders import printable
from reprolib.datasets.published import Counts, Source
from reprolib.datasets.split import LabelledTracklets, Split
from reprolib.decoding import ImageError, opened

SHOWN = 20  # number of problems that are listed; the others are only counted


@dataclass(frozen=True)
class Report:
    """The report that ``reprolib check-data`` prints."""

    source: Source
    folder: Path | None  # None if the dataset was not found
    counts: dict[str, Counts]  # for "train", "query" and "gallery"; empty if nothing could be read
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the dataset is complete and as published."""
        return not self.problems and self.counts == self.source.counts

    def __str__(self) -> str:
        """List the sets with their counts beside the published ones, the problems, and where to get the dataset."""
        lines = [f"{self.source.title}: {self.folder or 'not found'}"]
        if self.counts:
            lines.append(f"  {'':<9}{'identities':<18}{'images, tracklets':<20}cameras")
        for name, there in self.counts.items():
            published = self.source.counts[name]
            cells = [f"{a:,} of {b:,}" for a, b in zip(astuple(there), astuple(published), strict=True)]
            verdict = "as published" if there == published else "DIFFERS"
            lines.append(f"  {name:<9}{cells[0]:<18}{cells[1]:<20}{cells[2]:<10}{verdict}")
        lines.append(f"  problems: {len(self.problems):,}")
        lines += [f"    {problem}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"    and {len(self.problems) - SHOWN:,} more")
        return printable("\n".join([*lines, f"  source: {self.source.origin}", f"  terms: {self.source.terms}"]))


def count(split: Split, *, has_distractors: bool) -> dict[str, Counts]:
    """Count what was read, in the same way as the published counts."""
    ranked = {"query": split.query, "gallery": split.gallery}
    pids = {"train": split.train_pids} | {name: held.pids for name, held in ranked.items() if held is not None}
    counts = {}
    for name, own in pids.items():
        people = own[own != 0] if has_distractors else own
        camids = getattr(split, name).camids
        counts[name] = Counts(len(np.unique(people)), len(own), len(np.unique(camids)))
    return counts


def samples_per_identity(split: Split) -> list[int]:
    """Return the number of training samples per identity, the largest first (DBC Fig. 1)."""
    return sorted(np.unique(split.train_pids, return_counts=True)[1].tolist(), reverse=True)


def require_usable(split: Split) -> None:
    """Raise DatasetError if a run on the dataset could not be evaluated, or not fairly."""
    if problems := unusable(split):
        raise DatasetError("\n  ".join([f"{split.name} cannot be used as it is:", *problems]))


def unusable(split: Split) -> list[str]:
    """List the reasons why a run on the dataset could not be evaluated, or not fairly; empty if there are none."""
    sets = {"training": split.train, "query": split.query, "gallery": split.gallery}
    if split.query is None and split.gallery is None:
        del sets["query"], sets["gallery"]  # nothing will be ranked
    if lacking := [name for name, tracklets in sets.items() if tracklets is None]:
        return [f"there is no {lacking[0]}; pass both query and gallery, or neither"]
    if empty := [name for name, tracklets in sets.items() if len(tracklets) == 0]:
        return [f"there are no usable {name} images; add some, or unpack the dataset's archive again" for name in empty]
    ranked = {} if split.query is None else {"query": (split.query, split.gallery)}
    ranked |= {} if split.validation is None else {"validation": (split.validation, split.validation)}
    problems = []
    for name, (query, gallery) in ranked.items():
        if not _any_match(query, gallery):
            cameras = np.unique(gallery.camids).tolist()
            problems.append(
                f"no {name} image has a match from another camera (all cameras there: {cameras}); "
                "add images from other cameras"
            )
        shared = np.intersect1d(split.train_pids, np.concatenate([query.pids, gallery.pids]))
        shared = shared[shared >= 0]  # negative: junk, or training images of unknown identity
        if len(shared) and not split.gallery_is_train:
            where = "test" if name == "query" else name
            problems.append(
                f"{len(shared)} identities are in training and in {where}, first {shared[0]}; "
                "remove them from one of the two"
            )
    return problems


def _any_match(query: LabelledTracklets, gallery: LabelledTracklets) -> bool:
    """Whether any query has an image of its identity from another camera in the gallery."""
    seen = set(zip(gallery.pids.tolist(), gallery.camids.tolist(), strict=True))
    cameras = {camid for _, camid in seen}
    queries = zip(query.pids.tolist(), query.camids.tolist(), strict=True)
    return any((pid, other) in seen for pid, camid in queries if pid >= 0 for other in cameras - {camid})


def unreadable_images(split: Split) -> list[str]:
    """Decode every image file of the dataset; return a message for each file that fails."""
    sets = (split.train.frames, split.query.frames, split.gallery.frames)
    files = dict.fromkeys(file for frames in sets if not isinstance(frames, np.ndarray) for file in frames)
    with ThreadPoolExecutor() as pool:
        outcomes = tqdm(pool.map(_failure, files), total=len(files), desc="images opened", disable=None)
        return [outcome for outcome in outcomes if outcome]


def _failure(file: Path) -> str | None:
    try:
        with opened(file) as image:
            image.load()  # verify() would skip the pixels of a JPEG
    except ImageError as error:
        return str(error)
    return None
