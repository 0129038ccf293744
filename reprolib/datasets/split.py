"""The common form of all datasets: tracklets without identities for training, labelled tracklets for evaluation."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reprolib.datasets.archives import DatasetError


def _frames(frames) -> tuple[Path, ...] | np.ndarray:
    """Convert names of image files to paths; return an array of pixels unchanged.

    Raises:
        DatasetError: the frames are neither.
    """
    if isinstance(frames, np.ndarray) and frames.dtype.kind not in "UO":
        return frames
    names = [None] if isinstance(frames, str | Path) else list(frames)  # a single name is not a list of letters
    if not all(isinstance(name, str | Path) for name in names):
        raise DatasetError("frames must be a list of names of image files, or one array (n, H, W, 3) of uint8")
    return tuple(name if isinstance(name, Path) else Path(name) for name in names)


def _integers(name: str, values) -> np.ndarray:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise DatasetError(f"{name} must contain integers, not {array.dtype}")
    return array.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Training samples: each has the frames of one person in one camera; in an image dataset it has one frame.

    By construction there are no identities here.
    """

    frames: tuple[Path, ...] | np.ndarray  # image files, or (num_frames, H, W, 3) uint8
    starts: np.ndarray  # (n + 1,) int64: tracklet i is frames[starts[i]:starts[i + 1]]; None: one frame each
    camids: np.ndarray  # (n,) int64, from 0; None: all 0, if they are unknown, which is enough for training

    def __post_init__(self):
        """Convert file names given as strings and lists of numbers to the types above; refuse anything else."""
        object.__setattr__(self, "frames", _frames(self.frames))
        if self.starts is None:
            object.__setattr__(self, "starts", np.arange(len(self.frames) + 1))
        if self.camids is None:
            object.__setattr__(self, "camids", np.zeros(len(self.starts) - 1, np.int64))
        for name in {"starts", "camids", "pids"} & vars(self).keys():
            object.__setattr__(self, name, _integers(name, getattr(self, name)))
        if self.starts.ndim != 1 or len(self.starts) == 0:
            raise DatasetError(f"starts has shape {self.starts.shape}; pass (n + 1,) for n tracklets")
        for name in {"camids", "pids"} & vars(self).keys():
            if getattr(self, name).shape != (len(self.starts) - 1,):
                one_each = f"the {len(self.starts) - 1} tracklets of starts"
                raise DatasetError(f"{name} has shape {getattr(self, name).shape} for {one_each}; pass one for each")
        if self.starts[0] != 0 or (np.diff(self.starts) < 1).any():
            raise DatasetError(
                "starts must hold the first frame of each tracklet, in increasing order from 0, and the end of the last"
            )
        if self.starts[-1] != len(self.frames):
            raise DatasetError(
                f"starts ends at {self.starts[-1]}, but there are {len(self.frames)} frames; it must end at that number"
            )

    def __len__(self) -> int:
        """Number of tracklets."""
        return len(self.camids)

    def __repr__(self) -> str:
        """Return a short summary; there may be many frames."""
        return f"{type(self).__name__}({len(self):,} of {len(self.frames):,} frames)"

    def take(self, indices: np.ndarray) -> "Tracklets":
        """Return the tracklets at ``indices``, in that order, with only their frames."""
        spans = [np.arange(self.starts[i], self.starts[i + 1]) for i in indices]
        picked = np.concatenate(spans) if spans else np.empty(0, np.int64)
        frames = self.frames
        frames = frames[picked] if isinstance(frames, np.ndarray) else tuple(frames[k] for k in picked)
        starts = np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64)
        per_tracklet = {name: getattr(self, name)[indices] for name in ("camids", "pids") if hasattr(self, name)}
        return replace(self, frames=frames, starts=starts, **per_tracklet)


@dataclass(frozen=True, eq=False, repr=False)
class LabelledTracklets(Tracklets):
    """Query or gallery samples, with identities."""

    pids: np.ndarray  # (n,) int64; 0 is a distractor on Market-1501 and MARS


@dataclass(frozen=True, eq=False)
class Split:
    """A dataset: the training samples, the evaluation samples, and the training identities for diagnosis only."""

    name: str
    train: Tracklets
    query: LabelledTracklets | None = None  # pass both query and gallery, or neither: then nothing is ranked
    gallery: LabelledTracklets | None = None
    train_pids: np.ndarray | None = None  # (n,) int64, only for reprolib.quality; None: -1, unknown
    validation: LabelledTracklets | None = None  # identities left out of training, which may be used to select a stage
    images: str = ""  # a remark on the images to show beside every number, e.g. that they were re-encoded
    gallery_is_train: bool = False  # classification: pids are classes, and the training set is the gallery

    def __post_init__(self):
        """Convert a list of identities to an array; refuse sets of other types, and a name unfit for file names."""
        if not isinstance(self.train, Tracklets):
            raise DatasetError(f"train is a {type(self.train).__name__}; pass Tracklets(files, starts, camids)")
        for part in ("query", "gallery", "validation"):
            if not isinstance(getattr(self, part), LabelledTracklets | None):
                what = f"{part} is a {type(getattr(self, part)).__name__}"
                raise DatasetError(f"{what}; pass LabelledTracklets(files, starts, camids, pids), or None")
        pids = np.full(len(self.train), -1) if self.train_pids is None else self.train_pids
        object.__setattr__(self, "train_pids", _integers("train_pids", pids))
        if self.train_pids.shape != (len(self.train),):
            sizes = f"has shape {self.train_pids.shape} for {len(self.train)} training samples"
            raise DatasetError(f"train_pids {sizes}; pass one for each, or None if they are unknown")
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]+", self.name):
            raise DatasetError(f"name {self.name!r} is used in file names; use only letters, digits, '.', '-' and '_'")

    @property
    def is_video(self) -> bool:
        """Whether a training tracklet has more than one frame."""
        return len(self.train.frames) > len(self.train)

    @property
    def knows_identities(self) -> bool:
        """Whether the training identities of all samples are known."""
        return bool((self.train_pids >= 0).all())

    @property
    def is_sorted(self) -> bool:
        """Whether the training samples are known to be sorted by identity."""
        return self.knows_identities and bool((np.diff(self.train_pids) >= 0).all())

    def __repr__(self) -> str:
        """Return a short summary: the number of samples in each set."""
        sets = {part: getattr(self, part) for part in ("train", "query", "gallery", "validation")}
        return f"Split({self.name}: {', '.join(f'{part} {len(s):,}' for part, s in sets.items() if s is not None)})"

    def reorder(self, order: np.ndarray) -> "Split":
        """Return the dataset with the training tracklets at the indices ``order``, in that order."""
        return replace(self, train=self.train.take(order), train_pids=self.train_pids[order])

    def sort(self) -> "Split":
        """Sort the training samples by identity."""
        return self.reorder(np.argsort(self.train_pids, kind="stable"))

    def shuffle(self, seed: int) -> "Split":
        """Shuffle the training samples, so that neighboring indices share an identity only by chance."""
        return self.reorder(np.random.default_rng(seed).permutation(len(self.train)))

    def keep_samples(self, count: int, seed: int) -> "Split":
        """Keep only ``count`` training samples, drawn at random; also in the gallery, if it is the training set."""
        if not 1 <= count <= len(self.train):
            raise ValueError(
                f"samples={count}: {self.name} has {len(self.train)} training samples; use 1 to {len(self.train)}"
            )
        subset = self.reorder(np.random.default_rng(seed).choice(len(self.train), count, replace=False))
        if not self.gallery_is_train:
            return subset
        frames, starts, camids = subset.train.frames, subset.train.starts, np.ones(count, np.int64)
        return replace(subset, gallery=LabelledTracklets(frames, starts, camids, subset.train_pids))

    def keep_identities(self, count: int, seed: int) -> "Split":
        """Keep only ``count`` training identities, drawn at random; query and gallery stay complete.

        The same number of the other identities, or all of them if there are fewer, become the validation set.
        Identities seen by only one camera are not used for it.
        """
        if not self.knows_identities:
            raise ValueError(f"identities={count}: the training identities of {self.name} are not all known")
        pids = np.unique(self.train_pids)
        if not 1 <= count <= len(pids):
            raise ValueError(
                f"identities={count}: {self.name} has {len(pids)} training identities; use 1 to {len(pids)}"
            )
        kept = np.random.default_rng(seed).choice(pids, count, replace=False)
        several = {pid for pid in pids if len(np.unique(self.train.camids[self.train_pids == pid])) > 1}
        left_out = np.random.default_rng(seed).permutation(sorted(several.difference(kept)))[:count]
        index = np.flatnonzero(np.isin(self.train_pids, left_out))
        held = self.train.take(index)
        validation = LabelledTracklets(held.frames, held.starts, held.camids, self.train_pids[index])
        subset = self.reorder(np.flatnonzero(np.isin(self.train_pids, kept)))
        return replace(subset, validation=validation if len(index) else None)
