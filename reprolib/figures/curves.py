"""What runs give: metrics by stage, by method, by weight."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from reprolib.figures.style import caption, color_of, label_of, legend, panels, save


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
                ax.plot(curve.index, curve["mean"], color=color_of(recipe), label=label_of(recipe), lw=1.6)
                ax.fill_between(curve.index, curve["min"], curve["max"], color=color_of(recipe), alpha=0.18, lw=0)
            ax.set(xlabel="stage (times merged)", ylabel=f"{metric} (%)")
            ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        caption(row[0], group)
    legend(figure, axes)
    save(name)


def bars(data: pd.DataFrame, name: str, *, metrics: Sequence[str] = ("rank-1", "mAP")) -> None:
    """The stage kept of every recipe, one panel a column (dataset and backbone); dots are seeds."""
    data = data[data["kept"]]
    groups = list(dict.fromkeys(data["column"]))
    figure, axes = panels(len(groups), 3.8, 3)
    for ax, column in zip(axes, groups, strict=True):
        part = data[data["column"] == column]
        order = list(dict.fromkeys(part["recipe"]))
        for k, recipe in enumerate(order):
            rows = part[part["recipe"] == recipe]
            for j, metric in enumerate(metrics):
                place = j * (len(order) + 1) + k
                ax.bar(place, rows[metric].mean(), color=color_of(recipe), label=label_of(recipe) if j == 0 else None)
                ax.plot([place] * len(rows), rows[metric], "o", ms=2.5, color="k", alpha=0.6)
        centers = [j * (len(order) + 1) + (len(order) - 1) / 2 for j in range(len(metrics))]
        ax.set_xticks(centers, [f"{m} (%)" for m in metrics])
        ax.set_xlabel(column.replace(" · ", "\n"), fontsize=8)
        ax.tick_params(axis="x", length=0)
    legend(figure, axes)
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
                    label = label_of(piece) + style[1]
                    ax.plot(rows["N"], rows[quantity], style[0], ms=3, lw=1.4, color=color_of(piece), label=label)
            sizes = np.sort(part["N"].unique())
            product = part[part["contender"] == "product"].groupby("N")["seconds"].median()
            if quantity == "seconds":
                ax.plot(product.index, product, "o-", ms=2, lw=1, color="0.6", label="plain product")
            quadratic = product.iloc[-1] * (sizes / sizes[-1]) ** 2 if quantity == "seconds" else 4 * sizes**2 / 2**20
            ax.plot(sizes, quadratic, "--", lw=1, color="0.3", label="O(N²)")
            ax.set(xscale="log", yscale="log", xlabel="images N", ylabel=unit)
        caption(row[0], machine)
    legend(figure, axes)
    save(name)


def weight_curve(
    data: pd.DataFrame, weights: dict[str, float], name: str, *, flat: str | None = None, metrics=("rank-1", "mAP")
) -> None:
    """The stage kept against λ (BUC Fig. 3a, DBC Fig. 4); ``weights`` gives the λ of each recipe's name.

    The mean of the recipe ``flat``, which λ does not move, is dashed across.
    """
    kept = data[data["kept"]]
    data = kept[kept["recipe"].isin(weights)].assign(weight=lambda d: d["recipe"].map(weights))
    groups = list(dict.fromkeys(data["column"]))
    size = (3.4 * len(metrics), 2.6 * len(groups) + 0.2)
    figure, axes = plt.subplots(len(groups), len(metrics), figsize=size, squeeze=False)
    ticks = sorted(set(weights.values()))
    for row, group in zip(axes, groups, strict=True):
        part = data[data["column"] == group]
        level = kept[(kept["column"] == group) & (kept["recipe"] == flat)]
        for ax, metric in zip(row, metrics, strict=True):
            at = part["weight"].map(ticks.index)  # evenly spaced: λ spans decades and starts at 0
            mean = part.groupby(at)[metric].mean()
            recipe = min(weights, key=len)
            ax.plot(mean.index, mean, "-o", color=color_of(recipe), ms=4, lw=1.6, label=label_of(recipe))
            ax.plot(at, part[metric], "o", ms=2.5, color="k", alpha=0.5)
            if len(level):
                ax.axhline(level[metric].mean(), ls="--", lw=1.2, color=color_of(flat), label=label_of(flat))
            ax.set_xticks(range(len(ticks)), [f"{t:g}" for t in ticks])
            ax.set(xlabel="λ", ylabel=f"{metric} (%)")
        caption(row[0], group)
    if flat:
        legend(figure, axes)
    save(name)


def stages_and_clusters(data: pd.DataFrame, name: str) -> None:
    """Rank-1, mAP and, on an axis of its own, the number of clusters against the stage (BUC Fig. 3b)."""
    groups = list(dict.fromkeys(data["column"]))
    figure, axes = panels(len(groups), 4.6, 3.2)
    for ax, group in zip(axes, groups, strict=True):
        part = data[data["column"] == group].groupby("stage")[["rank-1", "mAP", "num_clusters"]]
        mean, low, high = part.mean(), part.min(), part.max()
        for metric, color in (("rank-1", color_of("buc")), ("mAP", color_of("buc_released"))):
            ax.plot(mean.index, mean[metric], color=color, label=f"{metric} (left)", lw=1.6)
            ax.fill_between(mean.index, low[metric], high[metric], color=color, alpha=0.18, lw=0)
        clusters = ax.twinx()
        clusters.plot(mean.index, mean["num_clusters"], color="0.6", ls="--", label="clusters (right)")
        clusters.set(ylabel="clusters", ylim=(0, None))
        clusters.spines["right"].set_visible(True)
        ax.set(xlabel="stage (times merged)", ylabel="%", ylim=(0, None))
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        caption(ax, group)
    legend(figure, np.array([axes[0], clusters]))
    save(name)


def long_tail(samples: dict[str, Sequence[int]], name: str) -> None:
    """Identities by their number of training samples, one panel a dataset (DBC Fig. 1)."""
    _, axes = plt.subplots(1, len(samples), figsize=(3.6 * len(samples), 2.6), squeeze=False)
    for ax, (dataset, counts) in zip(axes[0], samples.items(), strict=True):
        ax.hist(counts, bins=np.arange(0.5, max(counts) + 1.5), color="0.55")
        ax.axvline(np.mean(counts), color="k", lw=1, ls="--")
        ax.set(xlabel="training samples of an identity", ylabel="identities")
        caption(ax, dataset)
    save(name)


def changes(tables: dict[str, pd.DataFrame], name: str) -> None:
    """By how many points each change moves a result: a panel a table of ``audit.prices``, a row a change."""
    longest = max(table["change"].nunique() for table in tables.values())
    _, axes = plt.subplots(1, len(tables), figsize=(6.4 * len(tables), 0.34 * longest + 1), squeeze=False, sharex=True)
    for ax, (column, table) in zip(axes[0], tables.items(), strict=True):
        order = table.groupby("change", sort=False)["points"].mean().sort_values()
        for place, (change, mean) in enumerate(order.items()):
            points = table.loc[table["change"] == change, "points"]
            ax.plot(points, [place] * len(points), "o", ms=3, color="k", alpha=0.5)
            ax.plot([0, mean], [place, place], lw=5, color=color_of("dbc"), alpha=0.6, solid_capstyle="butt")
        ax.axvline(0, color="0.5", lw=0.8)
        ax.set_yticks(range(len(order)), order.index)
        ax.set(xlabel="points of rank-1", ylim=(-0.6, len(order) - 0.4))
        caption(ax, column)
    save(name)


def shares(data: pd.DataFrame, name: str, *, of: str = "images") -> None:
    """Columns of a table, fractions ``of`` something, by its index, the stage; a panel a value of its ``panel``."""
    groups = list(dict.fromkeys(data["panel"]))
    figure, axes = panels(len(groups), 3.6, 2.8, sharey=True)
    for ax, group in zip(axes, groups, strict=True):
        part = data[data["panel"] == group].drop(columns="panel").groupby(level=0).mean()
        for column, style in zip(part, ("-", "-", "--"), strict=False):
            ax.plot(part.index, 100 * part[column], style, lw=1.6, label=column)
        ax.set(xlabel="stage (times merged)", ylabel=f"{of} (%)")
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        caption(ax, group)
    axes[0].set_ylim(0)  # after all are drawn: the panels share it
    legend(figure, axes)
    save(name)
