"""What every dataset becomes: tracklets without identities to train on, labelled ones to evaluate on."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reprolib.datasets.archives import DatasetError


def as_frames(frames) -> tuple[Path, ...] | np.ndarray:
    """Names of image files as paths; an array of pixels as it is.

    Raises:
        DatasetError: neither.
    """
    if isinstance(frames, np.ndarray) and frames.dtype.kind not in "UO":
        return frames
    names = [None] if isinstance(frames, str | Path) else list(frames)  # one name is not a list of its letters
    if not all(isinstance(name, str | Path) for name in names):
        raise DatasetError("frames: give a list of names of image files, or one array (n, H, W, 3) of uint8")
    return tuple(name if isinstance(name, Path) else Path(name) for name in names)


def _integers(name: str, values) -> np.ndarray:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise DatasetError(f"{name} is {array.dtype}: give integers")
    return array.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Training samples: frames of one person in one camera; in an image dataset each has one frame.

    There is no identity here, by construction.
    """

    frames: tuple[Path, ...] | np.ndarray  # image files, or (num_frames, H, W, 3) uint8
    starts: np.ndarray  # (n + 1,) int64: tracklet i is frames[starts[i]:starts[i + 1]]; given None, one frame each
    camids: np.ndarray  # (n,) int64, from 0

    def __post_init__(self):
        """Names of files as strings, and lists of numbers, become what is said above; what cannot is refused."""
        object.__setattr__(self, "frames", as_frames(self.frames))
        if self.starts is None:
            object.__setattr__(self, "starts", np.arange(len(self.frames) + 1))
        for name in {"starts", "camids", "pids"} & vars(self).keys():
            object.__setattr__(self, name, _integers(name, getattr(self, name)))
        if self.starts.ndim != 1 or len(self.starts) == 0:
            raise DatasetError(f"starts has shape {self.starts.shape}: give (n + 1,) for n tracklets")
        for name in {"camids", "pids"} & vars(self).keys():
            if getattr(self, name).shape != (len(self.starts) - 1,):
                one_each = f"{len(self.starts) - 1} tracklets by starts"
                raise DatasetError(f"{name} has shape {getattr(self, name).shape} for {one_each}: give one for each")
        if self.starts[0] != 0 or (np.diff(self.starts) < 1).any():
            raise DatasetError("starts: give where each tracklet's frames begin, in rising order from 0, and their end")
        if self.starts[-1] != len(self.frames):
            raise DatasetError(f"starts ends at {self.starts[-1]}, and there are {len(self.frames)} frames: end there")

    def __len__(self) -> int:
        """Number of tracklets."""
        return len(self.camids)

    def __repr__(self) -> str:
        """Short: there may be many frames."""
        return f"{type(self).__name__}({len(self):,} of {len(self.frames):,} frames)"

    def take(self, indices: np.ndarray) -> "Tracklets":
        """The tracklets at ``indices``, in that order, with their frames and nothing else's."""
        spans = [np.arange(self.starts[i], self.starts[i + 1]) for i in indices]
        picked = np.concatenate(spans) if spans else np.empty(0, np.int64)
        frames = self.frames
        frames = frames[picked] if isinstance(frames, np.ndarray) else tuple(frames[k] for k in picked)
        starts = np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64)
        per_tracklet = {name: getattr(self, name)[indices] for name in ("camids", "pids") if hasattr(self, name)}
        return replace(self, frames=frames, starts=starts, **per_tracklet)


@dataclass(frozen=True, eq=False, repr=False)
class LabelledTracklets(Tracklets):
    """Query and gallery samples."""

    pids: np.ndarray  # (n,) int64; 0 is a distractor on Market-1501 and MARS


@dataclass(frozen=True, eq=False)
class Split:
    """A dataset: what training sees, what evaluation sees, and the identities that only diagnosis takes."""

    name: str
    train: Tracklets
    query: LabelledTracklets | None = None  # with the gallery, or neither: then nothing is ranked
    gallery: LabelledTracklets | None = None
    train_pids: np.ndarray | None = None  # (n,) int64, for reprolib.quality alone; None: -1, nobody knows them
    validation: LabelledTracklets | None = None  # of identities left out of training: a stage may be chosen on them
    images: str = ""  # what is to be said of them beside any number, such as that they were re-encoded

    def __post_init__(self):
        """A list of identities becomes an array; a name that no file can bear is refused."""
        pids = np.full(len(self.train), -1) if self.train_pids is None else self.train_pids
        object.__setattr__(self, "train_pids", _integers("train_pids", pids))
        if self.train_pids.shape != (len(self.train),):
            sizes = f"has shape {self.train_pids.shape} for {len(self.train)} training samples"
            raise DatasetError(f"train_pids {sizes}: give one for each, or None where nobody knows them")
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]+", self.name):
            raise DatasetError(f"name {self.name!r}: files bear it; take letters, digits, '.', '-' and '_'")

    @property
    def is_video(self) -> bool:
        """Whether a training tracklet has more than one frame."""
        return len(self.train.frames) > len(self.train)

    @property
    def knows_identities(self) -> bool:
        """Whether the training identities are known, of every sample."""
        return bool((self.train_pids >= 0).all())

    @property
    def is_sorted(self) -> bool:
        """Whether the training samples are known to lie sorted by identity."""
        return self.knows_identities and bool((np.diff(self.train_pids) >= 0).all())

    def __repr__(self) -> str:
        """Short: how many there are of each set."""
        sets = {part: getattr(self, part) for part in ("train", "query", "gallery", "validation")}
        return f"Split({self.name}: {', '.join(f'{part} {len(s):,}' for part, s in sets.items() if s is not None)})"

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
        if not self.knows_identities:
            raise ValueError(f"identities={count}: {self.name} does not know who its training samples are of")
        pids = np.unique(self.train_pids)
        if not 1 <= count <= len(pids):
            raise ValueError(
                f"identities={count}: {self.name} has {len(pids)} training identities; give 1 to {len(pids)}"
            )
        kept = np.random.default_rng(seed).choice(pids, count, replace=False)
        several = {pid for pid in pids if len(np.unique(self.train.camids[self.train_pids == pid])) > 1}
        left_out = np.random.default_rng(seed).permutation(sorted(several.difference(kept)))[:count]
        index = np.flatnonzero(np.isin(self.train_pids, left_out))
        held = self.train.take(index)
        validation = LabelledTracklets(held.frames, held.starts, held.camids, self.train_pids[index])
        subset = self.reorder(np.flatnonzero(np.isin(self.train_pids, kept)))
        return replace(subset, validation=validation if len(index) else None)
