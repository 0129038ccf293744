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


def stage_curves(
    data: pd.DataFrame, name: str, *, metrics: Sequence[str] = ("rank-1", "mAP"), published: dict | None = None
) -> None:
    """Metrics in percent against the stage, one panel a metric (BUC Fig. 3b, DBC Fig. 5); a band spans the seeds.

    ``data`` is ``results.tidy(records)`` of one column. ``published``: {metric: value in percent}, the paper's own
    on its own data, drawn dashed.
    """
    figure, axes = plt.subplots(1, len(metrics), figsize=(3.6 * len(metrics), 2.8), squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        for recipe in dict.fromkeys(data["recipe"]):
            curve = data[data["recipe"] == recipe].groupby("stage")[metric].agg(["mean", "min", "max"])
            ax.plot(curve.index, curve["mean"], color=COLORS[recipe], label=LABELS[recipe], lw=1.6)
            ax.fill_between(curve.index, curve["min"], curve["max"], color=COLORS[recipe], alpha=0.18, lw=0)
        if published:
            ax.axhline(published[metric], color="0.4", ls="--", lw=0.9)
        ax.set(xlabel="stage (times merged)", ylabel=f"{metric} (%)")
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)
    save(name)


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
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)
    save(name)


def contact_sheet(
    rows: Sequence[np.ndarray],
    name: str,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    frames=None,
) -> None:
    """Rows of images, each (n, H, W, 3) uint8; ``frames`` gives a row's images a border color each (None: none)."""
    width = max(len(row) for row in rows)
    figure, axes = plt.subplots(len(rows), width, figsize=(0.55 * width + 0.9, 1.08 * len(rows) + 0.2), squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            axes[r, c].imshow(image, interpolation="nearest")
            if frames is not None and frames[r][c] is not None:
                axes[r, c].spines[:].set(visible=True, color=frames[r][c], linewidth=2.2)
    for ax, label in zip(axes[:, 0], row_labels, strict=False):
        ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    for ax, label in zip(axes[0], column_labels, strict=False):
        ax.set_xlabel(label, fontsize=8)
        ax.xaxis.set_label_position("top")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    save(name)


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
