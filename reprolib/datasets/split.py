"""What every dataset becomes: tracklets without identities to train on, labelled ones to evaluate on."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Training samples: frames of one person in one camera; in an image dataset each has one frame.

    There is no identity here, by construction.
    """

    frames: tuple[Path, ...] | np.ndarray  # image files, or (num_frames, H, W, 3) uint8
    starts: np.ndarray  # (n + 1,) int64: tracklet i is frames[starts[i]:starts[i + 1]]
    camids: np.ndarray  # (n,) int64, from 0

    def __post_init__(self):
        """Names of files as strings, and lists of numbers, become what is said above."""
        if not isinstance(self.frames, np.ndarray) and not all(isinstance(f, Path) for f in self.frames):
            object.__setattr__(self, "frames", tuple(map(Path, self.frames)))
        for name in {"starts", "camids", "pids"} & vars(self).keys():
            object.__setattr__(self, name, np.asarray(getattr(self, name)))

    def __len__(self) -> int:
        """Number of tracklets."""
        return len(self.camids)

    def take(self, indices: np.ndarray) -> "Tracklets":
        """The tracklets at ``indices``, in that order, with their frames and nothing else's."""
        spans = [np.arange(self.starts[i], self.starts[i + 1]) for i in indices]
        picked = np.concatenate(spans) if spans else np.empty(0, np.int64)
        frames = self.frames
        frames = frames[picked] if isinstance(frames, np.ndarray) else tuple(frames[k] for k in picked)
        starts = np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64)
        per_tracklet = {name: getattr(self, name)[indices] for name in ("camids", "pids") if hasattr(self, name)}
        return replace(self, frames=frames, starts=starts, **per_tracklet)


@dataclass(frozen=True, eq=False)
class LabelledTracklets(Tracklets):
    """Query and gallery samples."""

    pids: np.ndarray  # (n,) int64; 0 is a distractor on Market-1501 and MARS


@dataclass(frozen=True, eq=False)
class Split:
    """A dataset: what training sees, what evaluation sees, and the identities that only diagnosis takes."""

    name: str
    train: Tracklets
    query: LabelledTracklets
    gallery: LabelledTracklets
    train_pids: np.ndarray  # (n,) int64, for reprolib.quality alone
    validation: LabelledTracklets | None = None  # of identities left out of training: a stage may be chosen on them
    images: str = ""  # what is to be said of them beside any number, such as that they were re-encoded

    def __post_init__(self):
        """A list of identities becomes an array."""
        object.__setattr__(self, "train_pids", np.asarray(self.train_pids))

    @property
    def is_video(self) -> bool:
        """Whether a training tracklet has more than one frame."""
        return len(self.train.frames) > len(self.train)

    def reorder(self, order: np.ndarray) -> "Split":
        """The same dataset with the training tracklets at ``order``, in that order."""
        return replace(self, train=self.train.take(order), train_pids=self.train_pids[order])

    def shuffle(self, seed: int) -> "Split":
        """Training order drawn at random, so that neighbouring indices share no identity but by chance."""
        return self.reorder(np.random.default_rng(seed).permutation(len(self.train)))

    def keep_samples(self, count: int, seed: int) -> "Split":
        """Only ``count`` training samples, drawn at random; CIFAR-10's gallery, which is its training set, likewise."""
        if not 1 <= count <= len(self.train):
            raise ValueError(f"samples={count}: {self.name} has {len(self.train)} training samples")
        subset = self.reorder(np.random.default_rng(seed).choice(len(self.train), count, replace=False))
        if self.name != "cifar10":
            return subset
        frames, starts, camids = subset.train.frames, subset.train.starts, np.ones(count, np.int64)
        return replace(subset, gallery=LabelledTracklets(frames, starts, camids, subset.train_pids))

    def keep_identities(self, count: int, seed: int) -> "Split":
        """Only ``count`` training identities, drawn at random; query and gallery stay whole.

        As many of those left out, or all there are, become the validation set, but for who is seen by one camera alone.
        """
        pids = np.unique(self.train_pids)
        if not 1 <= count <= len(pids):
            raise ValueError(f"identities={count}: {self.name} has {len(pids)} training identities")
        kept = np.random.default_rng(seed).choice(pids, count, replace=False)
        several = {pid for pid in pids if len(np.unique(self.train.camids[self.train_pids == pid])) > 1}
        left_out = np.random.default_rng(seed).permutation(sorted(several.difference(kept)))[:count]
        index = np.flatnonzero(np.isin(self.train_pids, left_out))
        held = self.train.take(index)
        validation = LabelledTracklets(held.frames, held.starts, held.camids, self.train_pids[index])
        subset = self.reorder(np.flatnonzero(np.isin(self.train_pids, kept)))
        return replace(subset, validation=validation if len(index) else None)
