"""One style, one palette, one function an exhibit; each draws, saves under ``results/figures`` and returns None."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from reprolib import paths

# BUC blue, DBC orange; without regularizer the same hue lighter; released programs darker; the rest grey.
COLORS = {
    "buc": "#1f77b4",
    "buc_unregularized": "#9ecae1",
    "buc_released": "#08306b",
    "dbc": "#e6550d",
    "dbc_unregularized": "#fdae6b",
    "dbc_released": "#7f2704",
    "oim": "#7f7f7f",
    "supervised": "#252525",
}
LABELS = {
    "buc": "BUC",
    "buc_unregularized": "BUC without regularizer",
    "buc_released": "BUC, released program",
    "dbc": "DBC",
    "dbc_unregularized": "DBC without regularizer",
    "dbc_released": "DBC, released program",
    "oim": "OIM (no merging)",
    "supervised": "supervised",
}


def use_style() -> None:
    """The house style of every figure."""
    sns.set_theme(style="ticks", context="notebook", font_scale=0.85)
    plt.rcParams.update(
        {
            "figure.figsize": (6, 3),
            "figure.dpi": 120,
            "savefig.dpi": 160,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def save(name: str) -> None:
    """Save the current figure as ``results/figures/<name>.png`` and show it."""
    paths.FIGURES.mkdir(parents=True, exist_ok=True)
    plt.gcf().savefig(paths.FIGURES / f"{name}.png", metadata={"Software": None})
    plt.show()


def stage_curves(data: pd.DataFrame, name: str, *, metrics: Sequence[str] = ("rank-1", "mAP")) -> None:
    """Metrics in percent against the stage (BUC Fig. 3b, DBC Fig. 5); a band spans the seeds.

    ``data`` is ``results.tidy(records)``: a row of panels for each of its columns, a panel for each metric.
    """
    groups = list(dict.fromkeys(data["column"]))
    size = (3.6 * len(metrics), 2.6 * len(groups) + 0.4)
    figure, axes = plt.subplots(len(groups), len(metrics), figsize=size, squeeze=False)
    for row, group in zip(axes, groups, strict=True):
        part = data[data["column"] == group]
        for ax, metric in zip(row, metrics, strict=True):
            for recipe in dict.fromkeys(part["recipe"]):
                curve = part[part["recipe"] == recipe].groupby("stage")[metric].agg(["mean", "min", "max"])
                ax.plot(curve.index, curve["mean"], color=COLORS[recipe], label=LABELS[recipe], lw=1.6)
                ax.fill_between(curve.index, curve["min"], curve["max"], color=COLORS[recipe], alpha=0.18, lw=0)
            ax.set(xlabel="stage (times merged)", ylabel=f"{metric} (%)")
            ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        row[0].annotate(group, (0, 1.03), xycoords="axes fraction", fontsize=7.5, color="0.3")
    _legend(figure, axes)
    save(name)


def _legend(figure, axes) -> None:
    """One legend under all panels, each method once."""
    entries = {}
    for ax in axes.flat:
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(3, len(entries)), fontsize=8)


def bars(data: pd.DataFrame, name: str, *, metrics: Sequence[str] = ("rank-1", "mAP")) -> None:
    """The stage kept of every recipe, one panel a column (dataset and backbone); dots are seeds."""
    data = data[data["kept"]]
    groups = list(dict.fromkeys(data["column"]))
    figure, axes = plt.subplots(1, len(groups), figsize=(3.8 * len(groups), 3), squeeze=False)
    for ax, column in zip(axes[0], groups, strict=True):
        part = data[data["column"] == column]
        order = list(dict.fromkeys(part["recipe"]))
        for k, recipe in enumerate(order):
            rows = part[part["recipe"] == recipe]
            for j, metric in enumerate(metrics):
                place = j * (len(order) + 1) + k
                ax.bar(place, rows[metric].mean(), color=COLORS[recipe], label=LABELS[recipe] if j == 0 else None)
                ax.plot([place] * len(rows), rows[metric], "o", ms=2.5, color="k", alpha=0.6)
        centers = [j * (len(order) + 1) + (len(order) - 1) / 2 for j in range(len(metrics))]
        ax.set_xticks(centers, [f"{m} (%)" for m in metrics])
        ax.set_xlabel(column.replace(" · ", "\n"), fontsize=8)
        ax.tick_params(axis="x", length=0)
    _legend(figure, axes)
    save(name)


def growth(data: pd.DataFrame, name: str) -> None:
    """Time and memory of a stage against N on log axes, a row of panels a machine; dashed, the O(N²) of DBC III-E.

    ``data`` is ``timings.growth(benchmarks)``. The dashed lines go through the last plain product, and are what all
    distances take in float32.
    """
    machines = list(dict.fromkeys(data["column"]))
    figure, axes = plt.subplots(len(machines), 2, figsize=(7.6, 3 * len(machines) + 0.5), squeeze=False)
    for row, machine in zip(axes, machines, strict=True):
        part = data[data["column"] == machine].sort_values("N")
        for ax, quantity, unit in zip(
            row, ("seconds", "MiB"), ("time (s)", "memory over the features (MiB)"), strict=True
        ):
            for (contender, piece), rows in part.groupby(["contender", "piece"], sort=False):
                style = {"ours": ("o-", ""), "literal loop": ("s:", ", literal loop")}.get(contender)
                if style:
                    label = LABELS[piece] + style[1]
                    ax.plot(rows["N"], rows[quantity], style[0], ms=3, lw=1.4, color=COLORS[piece], label=label)
            sizes = np.sort(part["N"].unique())
            product = part[part["contender"] == "product"].groupby("N")["seconds"].median()
            if quantity == "seconds":
                ax.plot(product.index, product, "o-", ms=2, lw=1, color="0.6", label="plain product")
            quadratic = product.iloc[-1] * (sizes / sizes[-1]) ** 2 if quantity == "seconds" else 4 * sizes**2 / 2**20
            ax.plot(sizes, quadratic, "--", lw=1, color="0.3", label="O(N²)")
            ax.set(xscale="log", yscale="log", xlabel="images N", ylabel=unit)
        row[0].annotate(machine, (0, 1.03), xycoords="axes fraction", fontsize=7.5, color="0.3")
    _legend(figure, axes)
    save(name)


def contact_sheet(
    rows: Sequence[np.ndarray], name: str, *, row_labels: Sequence[str] = (), marked: Sequence[np.ndarray] = ()
) -> None:
    """Rows of images, each (n, H, W, 3) uint8; ``marked``: for each row (n,) bool, images to frame in red."""
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


def people(frames: np.ndarray, pids: np.ndarray, camids: np.ndarray, name: str, *, count: int = 6) -> None:
    """A row each for the people seen by most cameras, their images in the order of the cameras."""
    seen_by = {pid: len(np.unique(camids[pids == pid])) for pid in np.unique(pids)}
    rows, labels = [], []
    for pid in sorted(seen_by, key=seen_by.get, reverse=True)[:count]:
        own = np.flatnonzero(pids == pid)
        own = own[np.argsort(camids[own], kind="stable")]
        rows.append(frames[own[np.linspace(0, len(own) - 1, min(14, len(own))).astype(int)]])
        labels.append(f"identity {pid}\n{seen_by[pid]} cameras")
    contact_sheet(rows, name, row_labels=labels)


def clusters(frames: np.ndarray, pseudo_labels: np.ndarray, pids: np.ndarray, name: str, *, count: int = 4) -> None:
    """The largest clusters, a row each; framed in red whoever is not the cluster's most frequent person."""
    sizes = np.bincount(pseudo_labels)
    rows, labels, marked = [], [], []
    for cluster in np.argsort(-sizes, kind="stable")[:count]:
        own = np.flatnonzero(pseudo_labels == cluster)
        identities, times = np.unique(pids[own], return_counts=True)
        other = pids[own] != identities[times.argmax()]
        shown = own[np.argsort(other, kind="stable")][np.linspace(0, len(own) - 1, min(14, len(own))).astype(int)]
        rows.append(frames[shown])
        marked.append(pids[shown] != identities[times.argmax()])
        labels.append(f"{len(own)} images\n{len(identities)} people")
    contact_sheet(rows, name, row_labels=labels, marked=marked)


def sphere(panels: Sequence[tuple[str, np.ndarray, np.ndarray]], name: str) -> None:
    """Points on the unit sphere, one panel each of (caption, (n, 3) unit rows, (n,) labels): BUC Fig. 2 (b)-(d)."""
    figure = plt.figure(figsize=(3.1 * len(panels), 3.1))
    u, v = np.mgrid[0 : 2 * np.pi : 25j, 0 : np.pi : 13j]
    for k, (caption, points, labels) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), k + 1, projection="3d")
        ax.plot_wireframe(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), color="0.85", lw=0.4)
        ax.scatter(*points.T, c=labels, cmap="tab20", s=34, depthshade=True, edgecolor="k", linewidth=0.3)
        ax.set_axis_off()
        ax.set_box_aspect((1, 1, 1), zoom=1.35)
        ax.text2D(0.5, 0.0, caption, transform=ax.transAxes, ha="center", fontsize=8)
    save(name)
