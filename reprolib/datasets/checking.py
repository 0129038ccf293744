"""What is there of a dataset, beside what its authors published."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

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
        return "\n".join([*lines, f"  source: {self.source.origin}", f"  terms: {self.source.terms}"])


def count(split: Split, *, has_distractors: bool) -> dict[str, Counts]:
    """Counts of what was read, in the terms of the published ones."""
    pids = {"train": split.train_pids, "query": split.query.pids, "gallery": split.gallery.pids}
    counts = {}
    for name, own in pids.items():
        people = own[own != 0] if has_distractors else own
        camids = getattr(split, name).camids
        counts[name] = Counts(len(np.unique(people)), len(own), len(np.unique(camids)))
    return counts


def samples_per_identity(split: Split) -> list[int]:
    """Training samples of each identity, the most frequent first (DBC Fig. 1)."""
    return sorted(np.unique(split.train_pids, return_counts=True)[1].tolist(), reverse=True)


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
