"""Sheets of images: identities, clusters, tracklets."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from reprolib.decoding import opened
from reprolib.figures.style import save


def contact_sheet(
    rows: Sequence[np.ndarray], name: str, *, row_labels: Sequence[str] = (), marked: Sequence[np.ndarray] = ()
) -> None:
    """Show rows of images, each (n, H, W, 3) uint8; ``marked`` has (n,) bool per row, the images to frame in red."""
    width = max(len(row) for row in rows)
    figure, axes = plt.subplots(len(rows), width, figsize=(0.5 * width + 1, 0.98 * len(rows)), squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            axes[r, c].imshow(image, interpolation="nearest")
            if len(marked) and marked[r][c]:
                axes[r, c].spines[:].set(visible=True, color="red", linewidth=2)
    for ax, label in zip(axes[:, 0], row_labels, strict=False):
        ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    save(name)


def some_of(index: np.ndarray, most: int) -> np.ndarray:
    """Select at most ``most`` indices, evenly spaced."""
    return index[np.linspace(0, len(index) - 1, min(most, len(index))).astype(int)]


def people(frames: np.ndarray, pids: np.ndarray, camids: np.ndarray, name: str, *, count: int = 6) -> None:
    """Show the people seen by the most cameras, one row each, with their images sorted by camera."""
    seen_by = {pid: len(np.unique(camids[pids == pid])) for pid in np.unique(pids)}
    rows, labels = [], []
    for pid in sorted(seen_by, key=seen_by.get, reverse=True)[:count]:
        own = np.flatnonzero(pids == pid)
        own = own[np.argsort(camids[own], kind="stable")]
        rows.append(frames[some_of(own, 14)])
        labels.append(f"identity {pid}\n{seen_by[pid]} cameras")
    contact_sheet(rows, name, row_labels=labels)


def clusters(frames: np.ndarray, pseudo_labels: np.ndarray, pids: np.ndarray, name: str, *, count: int = 4) -> None:
    """Show the largest clusters, one row each; images that are not of the most frequent person are framed in red."""
    sizes = np.bincount(pseudo_labels)
    rows, labels, marked = [], [], []
    for cluster in np.argsort(-sizes, kind="stable")[:count]:
        own = np.flatnonzero(pseudo_labels == cluster)
        identities, times = np.unique(pids[own], return_counts=True)
        other = pids[own] != identities[times.argmax()]
        shown = some_of(np.argsort(other, kind="stable"), 14)
        rows.append(frames[own[shown]])
        marked.append(other[shown])
        labels.append(f"{len(own)} images\n{len(identities)} {'person' if len(identities) == 1 else 'people'}")
    contact_sheet(rows, name, row_labels=labels, marked=marked)


def tracklets(frames: np.ndarray, starts: np.ndarray, pids: np.ndarray, name: str, *, count: int = 4) -> None:
    """Show the longest tracklet of each of a few identities, one row each, frame by frame (DBC Fig. 3)."""
    lengths, rows, labels = np.diff(starts), [], []
    for pid in np.unique(pids)[:count]:
        own = np.flatnonzero(pids == pid)
        longest = own[lengths[own].argmax()]
        rows.append(frames[starts[longest] : starts[longest + 1]])
        labels.append(f"identity {pid}\n{lengths[longest]} frames")
    contact_sheet(rows, name, row_labels=labels)


def first_frames(tracklets) -> np.ndarray:
    """Return the first frame of every tracklet, (n, H, W, 3), reading the files if necessary."""
    first = tracklets.starts[:-1]
    if isinstance(tracklets.frames, np.ndarray):
        return tracklets.frames[first]
    return np.stack([_small(tracklets.frames[i]) for i in first])


def _small(file: Path) -> np.ndarray:
    with opened(file) as image:
        return np.asarray(image.convert("RGB").resize((64, 128)))
