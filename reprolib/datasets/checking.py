"""What is there of a dataset, beside what its authors published."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from reprolib.datasets.archives import DatasetError
from reprolib.datasets.folders import printable
from reprolib.datasets.published import Counts, Source
from reprolib.datasets.split import Split

SHOWN = 20  # problems written out; the others are counted


@dataclass(frozen=True)
class Report:
    """What ``reprolib check-data`` prints."""

    source: Source
    folder: Path | None  # None where the dataset was not found
    counts: dict[str, Counts]  # of "train", "query" and "gallery"; empty where nothing could be read
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is there and as published."""
        return not self.problems and self.counts == self.source.counts

    def __str__(self) -> str:
        """The sets, each count beside the published one; the problems; where to get the dataset."""
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
    """Counts of what was read, in the terms of the published ones."""
    ranked = {"query": split.query, "gallery": split.gallery}
    pids = {"train": split.train_pids} | {name: held.pids for name, held in ranked.items() if held is not None}
    counts = {}
    for name, own in pids.items():
        people = own[own != 0] if has_distractors else own
        camids = getattr(split, name).camids
        counts[name] = Counts(len(np.unique(people)), len(own), len(np.unique(camids)))
    return counts


def samples_per_identity(split: Split) -> list[int]:
    """Training samples of each identity, the most frequent first (DBC Fig. 1)."""
    return sorted(np.unique(split.train_pids, return_counts=True)[1].tolist(), reverse=True)


def require_usable(split: Split) -> None:
    """Raise DatasetError where a run on the dataset could not be evaluated, or not fairly."""
    if problems := unusable(split):
        raise DatasetError("\n  ".join([f"{split.name} cannot be used as it is:", *problems]))


def unusable(split: Split) -> list[str]:
    """Why a run on the dataset could not be evaluated, or not fairly; empty where it could."""
    sets = {"training": split.train, "query": split.query, "gallery": split.gallery}
    if split.query is None and split.gallery is None:
        del sets["query"], sets["gallery"]  # nothing is to be ranked
    if lacking := [name for name, tracklets in sets.items() if tracklets is None]:
        return [f"no {lacking[0]}: give query and gallery, or neither"]
    if empty := [name for name, tracklets in sets.items() if len(tracklets) == 0]:
        return [f"0 {name} images that count; give some, or unpack the dataset's archive again" for name in empty]
    problems = []
    if "query" not in sets:
        return problems
    seen = set(zip(split.gallery.pids.tolist(), split.gallery.camids.tolist(), strict=True))
    cameras = {camid for _, camid in seen}
    queries = zip(split.query.pids.tolist(), split.query.camids.tolist(), strict=True)
    if not any((pid, other) in seen for pid, camid in queries if pid >= 0 for other in cameras - {camid}):
        problems.append(
            f"no query has a match from another camera, the gallery's are {sorted(cameras)}; add images of others"
        )
    shared = np.intersect1d(split.train_pids, np.concatenate([split.query.pids, split.gallery.pids]))
    shared = shared[shared >= 0]  # below: junk, or training images of whom nobody knows
    if len(shared) and split.name != "cifar10":  # its pids are classes
        problems.append(
            f"{len(shared)} identities are in training and in test, first {shared[0]}; take them out of one of the two"
        )
    return problems


def unreadable_images(split: Split) -> list[str]:
    """Decode every image file of the dataset; what fails, and why."""
    sets = (split.train.frames, split.query.frames, split.gallery.frames)
    files = dict.fromkeys(file for frames in sets if not isinstance(frames, np.ndarray) for file in frames)
    with ThreadPoolExecutor() as pool:
        outcomes = tqdm(pool.map(_failure, files), total=len(files), desc="images opened", disable=None)
        return [outcome for outcome in outcomes if outcome]


def _failure(file: Path) -> str | None:
    try:
        with Image.open(file) as image:
            image.load()  # verify() passes over the pixels of a JPEG
    except Exception as error:  # Pillow has a kind for each format
        return f"{file}: not a readable image ({error}); take it from the dataset's archive again"
    return None
