"""Plots of points: on the sphere, in the plane, and features on a t-SNE map."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from reprolib.figures.people import some_of
from reprolib.figures.style import save


def sphere(panels: Sequence[tuple[str, np.ndarray, np.ndarray]], name: str) -> None:
    """Plot points on the unit sphere, a panel for each (caption, (n, 3) unit rows, (n,) labels): BUC Fig. 2 (b)-(d)."""
    figure = plt.figure(figsize=(3.1 * len(panels), 3.1))
    u, v = np.mgrid[0 : 2 * np.pi : 25j, 0 : np.pi : 13j]
    for k, (caption, points, labels) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), k + 1, projection="3d", computed_zorder=False)
        ax.plot_wireframe(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), color="0.85", lw=0.4, zorder=1)
        ax.scatter(*points.T, c=labels, cmap="tab20", s=34, depthshade=True, edgecolor="k", linewidth=0.3, zorder=2)
        ax.set_axis_off()
        ax.set_box_aspect((1, 1, 1), zoom=1.35)
        ax.text2D(0.5, 0.0, caption, transform=ax.transAxes, ha="center", fontsize=8)
    save(name)


def plane(panels: Sequence[tuple[str, np.ndarray, np.ndarray]], name: str) -> None:
    """Plot points in the plane by cluster, a panel for each (caption, (n, 2), (n,) labels); lines join a cluster.

    A cluster has the color of its first point, so that an unchanged cluster keeps its color across panels.
    """
    wide, high = np.ptp(np.concatenate([points for _, points, _ in panels]), axis=0)
    _, axes = plt.subplots(
        1, len(panels), figsize=(2.7 * len(panels), 2.7 * max(high / wide, 0.3) + 0.3), squeeze=False
    )
    palette = plt.get_cmap("tab20")
    for ax, (caption, points, labels) in zip(axes[0], panels, strict=True):
        for label in np.unique(labels):
            own = points[labels == label]
            center, color = own.mean(0), palette(np.flatnonzero(labels == label)[0] % 20)
            for point in own:
                ax.plot(*zip(center, point, strict=True), color=color, lw=1, alpha=0.6)
            ax.scatter(*own.T, color=color, s=36, edgecolor="k", linewidth=0.4, zorder=3)
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.margins(0.15)
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color("0.8")
        ax.set_xlabel(caption, fontsize=8)
    save(name)


def tsne(xy: np.ndarray, pids: np.ndarray, frames: np.ndarray, pseudo_labels: np.ndarray, name: str) -> None:
    """Plot a t-SNE map (N, 2) colored by identity, with halos around a right and a wrong cluster (BUC Fig. 4).

    The images of these two clusters, :func:`example_clusters`, are shown beside the map. Each of their points has a
    halo of its own, because a circle around all would contain other points.
    """
    examples = example_clusters(pseudo_labels, pids)
    figure = plt.figure(figsize=(8.4, 4.6))
    grid = figure.add_gridspec(4, 10)
    ax = figure.add_subplot(grid[:, :6])
    colors = np.random.default_rng(0).permutation(np.linspace(0, 1, pids.max() + 1))[pids]
    ax.scatter(*xy.T, c=colors, cmap="nipy_spectral", s=9, linewidth=0, zorder=2)
    ax.set_axis_off()
    ax.set_aspect("equal")
    for kind, color, top in (("right", "tab:green", 0), ("wrong", "tab:red", 2)):
        if kind not in examples:
            continue
        own = np.flatnonzero(pseudo_labels == examples[kind])
        for halo, size in (("k", 110), (color, 80), ("w", 20)):  # visible among points of the same color, too
            ax.scatter(*xy[own].T, s=size, color=halo, linewidth=0, zorder=1)
        own = own[np.argsort(pids[own], kind="stable")]
        for k, image in enumerate(frames[some_of(own, 8)]):
            small = figure.add_subplot(grid[top + k // 4, 6 + k % 4])
            small.imshow(image, interpolation="nearest")
            small.set(xticks=[], yticks=[])
            small.spines[:].set(visible=True, color=color, linewidth=1.5)
    save(name)


def example_clusters(pseudo_labels: np.ndarray, pids: np.ndarray) -> dict[str, int]:
    """Find a right cluster (the largest with a single identity) and a wrong one.

    The wrong one is the cluster whose second most frequent identity has the most images. A kind without any cluster is
    left out.
    """
    table = np.zeros((pseudo_labels.max() + 1, max(2, pids.max() + 1)), int)  # images of each identity in each cluster
    np.add.at(table, (pseudo_labels[pids >= 0], pids[pids >= 0]), 1)
    first, second = np.sort(table, axis=1)[:, ::-1][:, :2].T
    images = {"right": np.where(second == 0, first, 0), "wrong": second}
    return {kind: int(counts.argmax()) for kind, counts in images.items() if counts.any()}
