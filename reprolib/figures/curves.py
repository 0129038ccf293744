"""Plots of run results: metrics by stage, by method and by regularizer weight."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from reprolib.figures.style import caption, color_of, label_of, legend, panels, save


def stage_curves(
    data: pd.DataFrame,
    name: str,
    *,
    metrics: Sequence[str] = ("rank-1", "mAP"),
    labels: dict[str, str] | None = None,
    level: tuple[str, float] | None = None,
) -> None:
    """Plot metrics in percent against the stage (BUC Fig. 3b, DBC Fig. 5), for the stages that all seeds have.

    A band spans the seeds. ``data`` is ``results.tidy(records)``; each of its columns gets a row of panels with one
    panel per metric. ``labels`` overrides the default names of recipes. ``level`` is the name and value of a horizontal
    line. If a recipe was run on both shuffled and sorted images, the shuffled runs are dashed.
    """
    recipes, groups = set(data["recipe"]), list(dict.fromkeys(data["column"]))
    size = (3.6 * len(metrics), 2.6 * len(groups) + 0.4)
    figure, axes = plt.subplots(len(groups), len(metrics), figsize=size, squeeze=False)
    for row, group in zip(axes, groups, strict=True):
        part = data[data["column"] == group]
        for ax, metric in zip(row, metrics, strict=True):
            for recipe, runs in part.groupby("recipe", sort=False):
                common = runs[runs.groupby("stage")["seed"].transform("size") == runs["seed"].nunique()]
                shuffled = f"{recipe}_sorted" in recipes  # drawn above the sorted runs, which it may coincide with
                style = {"linestyle": "--", "zorder": 4} if shuffled else {"linestyle": "-", "zorder": 3}
                _line(ax, common, metric, color=color_of(recipe), label=label_of(recipe, labels), **style)
            if level:
                ax.axhline(level[1], ls=":", lw=1.2, color="0.4", label=level[0])
            _over_stages(ax, ylabel=f"{metric} (%)")
        caption(row[0], group)
    legend(figure, axes)
    save(name)


def bars(
    data: pd.DataFrame,
    name: str,
    *,
    paper: pd.DataFrame | None = None,
    metrics: Sequence[str] = ("rank-1", "mAP"),
    labels: dict[str, str] | None = None,
) -> None:
    """Plot the kept stage of every recipe, one panel per column (dataset and backbone); dots are seeds.

    ``paper`` is the table from ``results.as_published``; it gets the first panel, with hollow bars. ``labels``
    overrides the default names of recipes.
    """
    data = pd.concat([paper, data[data["kept"]]])
    data = data.assign(method=[label_of(recipe, labels) for recipe in data["recipe"]])
    colors = dict(zip(data["method"], map(color_of, data["recipe"]), strict=True))
    groups = list(dict.fromkeys(data["column"]))
    figure, axes = panels(len(groups), 3.8, 3)
    for k, (ax, group) in enumerate(zip(axes, groups, strict=True)):
        part = data[data["column"] == group].melt("method", list(metrics), var_name="metric")
        how = {"data": part, "x": "metric", "y": "value", "hue": "method", "ax": ax}
        hollow = k == 0 and paper is not None
        sns.barplot(**how, palette=colors, saturation=1, gap=0.15, errorbar=None, fill=not hollow)
        if not hollow:
            sns.stripplot(
                **how, palette=dict.fromkeys(colors, "k"), dodge=True, jitter=False, size=2.5, alpha=0.6, legend=False
            )
        ax.get_legend().remove()  # there is one legend under all panels
        ax.set(ylabel="%")
        ax.set_xlabel(group.replace(" · ", "\n"), fontsize=8)
        ax.tick_params(axis="x", length=0)
    legend(figure, axes)
    save(name)


def growth(data: pd.DataFrame, name: str) -> None:
    """Plot time and memory of a stage against N on log axes, a row of panels per machine; dashed: O(N²) of DBC III-E.

    ``data`` is ``timings.growth(benchmarks)``; memory does not include the features. The dashed line for time goes
    through the last plain product, the one for memory is the size of all distances in float32. BUC's lines are broad,
    because those of DBC's program lie on top of them.
    """
    machines = list(dict.fromkeys(data["column"]))
    figure, axes = plt.subplots(len(machines), 2, figsize=(7.6, 3 * len(machines) + 0.5), squeeze=False)
    for row, machine in zip(axes, machines, strict=True):
        part = data[data["column"] == machine].sort_values("N")
        part = part.sort_values("contender", key=lambda contender: contender != "ours", kind="stable")
        for ax, quantity, unit in zip(row, ("seconds", "MiB"), ("time (s)", "memory (MiB)"), strict=True):
            for (contender, piece), rows in part.groupby(["contender", "piece"], sort=False):
                style = {"ours": ("o-", ""), "literal loop": ("s:", ", literal loop")}.get(contender)
                if style:
                    label = label_of(piece) + style[1]
                    broad = {"lw": 4, "alpha": 0.45} if piece == "buc" else {"lw": 1.4}
                    ax.plot(rows["N"], rows[quantity], style[0], ms=3, color=color_of(piece), label=label, **broad)
            sizes = np.sort(part["N"].unique())
            product = part[part["contender"] == "product"].groupby("N")["seconds"].median()
            if quantity == "seconds":
                ax.plot(product.index, product, "o-", ms=2, lw=1, color="0.6", label="plain product")
            quadratic = product.iloc[-1] * (sizes / sizes[-1]) ** 2 if quantity == "seconds" else 4 * sizes**2 / 2**20
            ax.plot(sizes, quadratic, "--", lw=1, color="0.3", label="N² (right: all distances in float32)")
            ax.set(xscale="log", yscale="log", xlabel="images N", ylabel=unit)
        caption(row[0], machine)
    legend(figure, axes)
    save(name)


def weight_curve(
    data: pd.DataFrame, weights: dict[str, float], name: str, *, flat: str | None = None, metrics=("rank-1", "mAP")
) -> None:
    """Plot the kept stage against λ (BUC Fig. 3a, DBC Fig. 4); ``weights`` maps recipe names to their λ.

    There is a row of panels for each column with at least two λ. Dots are seeds; a line joins their means if there are
    at least three λ. The recipe ``flat``, which does not depend on λ, is a horizontal line at its mean with a band that
    spans its seeds.
    """
    kept = data[data["kept"]]
    data = kept[kept["recipe"].isin(weights)].assign(weight=lambda d: d["recipe"].map(weights))
    data = data[data.groupby("column")["weight"].transform("nunique") > 1]
    groups = list(dict.fromkeys(data["column"]))
    size = (3.4 * len(metrics), 2.6 * len(groups) + 0.2)
    figure, axes = plt.subplots(len(groups), len(metrics), figsize=size, squeeze=False, sharex=True)
    ticks = sorted(set(weights.values()))
    for row, group in zip(axes, groups, strict=True):
        part = data[data["column"] == group]
        level = kept[(kept["column"] == group) & (kept["recipe"] == flat)]
        for ax, metric in zip(row, metrics, strict=True):
            at = part["weight"].map(ticks.index)  # evenly spaced: λ spans decades and starts at 0
            recipe = min(weights, key=len)  # the shortest name is that of the method itself
            joined = "-" if at.nunique() > 2 else ""
            how = {"x": at, "y": part[metric], "ax": ax}
            style = {"color": color_of(recipe), "label": label_of(recipe), "linestyle": joined, "legend": False}
            sns.lineplot(**how, errorbar=None, marker="o", markersize=5, markeredgewidth=0, **style)
            sns.scatterplot(**how, legend=False, s=8, color="k", alpha=0.5, linewidth=0, zorder=3)
            if len(level):
                values, color = level[metric], color_of(flat)
                ax.axhline(values.mean(), lw=1.2, color=color, label=label_of(flat))
                ax.axhspan(values.min(), values.max(), color=color, alpha=0.12, lw=0)
            ax.set_xticks(range(len(ticks)), [f"{t:g}" for t in ticks])
            ax.set(xlabel="λ", ylabel=f"{metric} (%)", xlim=(-0.4, len(ticks) - 0.6))
            ax.tick_params(labelbottom=True)
            ax.xaxis.label.set_visible(True)  # seaborn hides it where panels share the axis
        caption(row[0], group)
    if flat:
        legend(figure, axes)
    save(name)


def stages_and_clusters(data: pd.DataFrame, name: str) -> None:
    """Plot rank-1, mAP and, on a separate axis, the number of clusters against the stage (BUC Fig. 3b)."""
    groups = list(dict.fromkeys(data["column"]))
    figure, axes = panels(len(groups), 4.6, 3.2)
    for ax, group in zip(axes, groups, strict=True):
        part = data[data["column"] == group]
        for metric, width in (("rank-1", 2), ("mAP", 1)):
            _line(ax, part, metric, color=color_of("buc"), label=f"{metric} (left)", lw=width)
        clusters = ax.twinx()
        _line(clusters, part, "num_clusters", color="0.6", label="clusters (right)", linestyle="--")
        clusters.set(ylabel="clusters", ylim=(0, None))
        clusters.spines["right"].set_visible(True)
        _over_stages(ax, ylabel="%", ylim=(0, None))
        caption(ax, group)
    legend(figure, np.array([axes[0], clusters]))
    save(name)


def long_tail(samples: dict[str, Sequence[int]], name: str) -> None:
    """Plot a histogram of training samples per identity, one panel per dataset (DBC Fig. 1)."""
    _, axes = plt.subplots(1, len(samples), figsize=(3.6 * len(samples), 2.6), squeeze=False)
    for ax, (dataset, counts) in zip(axes[0], samples.items(), strict=True):
        sns.histplot(counts, discrete=True, color="0.55", alpha=1, linewidth=0, ax=ax)
        ax.axvline(np.mean(counts), color="k", lw=1, ls="--")
        ax.set(xlabel="training samples of an identity", ylabel="identities")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(plt.MaxNLocator(5, integer=True))
        caption(ax, dataset)
    save(name)


def changes(data: pd.DataFrame, name: str, *, of: str) -> None:
    """Plot the points by which each change moves a result of the recipe ``of``; dots are seeds, the bar is their mean.

    ``data`` is the table from ``audit.prices``; there is a panel for each of its columns and a row for each change, in
    the order of the table.
    """
    groups, order = list(dict.fromkeys(data["column"])), list(dict.fromkeys(data["change"]))
    size = (3.2 * len(groups) + 2.6, 0.34 * len(order) + 1)
    _, axes = plt.subplots(1, len(groups), figsize=size, squeeze=False, sharex=True, sharey=True)
    for ax, group in zip(axes[0], groups, strict=True):
        how = {"data": data[data["column"] == group], "x": "points", "y": "change", "order": order, "ax": ax}
        sns.barplot(**how, errorbar=None, width=0.5, saturation=1, color=color_of(of), alpha=0.6)
        sns.swarmplot(**how, size=3, color="k", alpha=0.5)
        ax.axvline(0, color="0.5", lw=0.8)
        for row, change in enumerate(order):
            if change not in set(how["data"]["change"]):
                ax.annotate(
                    "not run", (0, row), (4, 0), textcoords="offset points", va="center", fontsize=8, color="0.5"
                )
        ax.set(xlabel="points of rank-1", ylabel="")
        caption(ax, group)
    save(name)


def shares(data: pd.DataFrame, name: str, *, of: str = "images") -> None:
    """Plot columns of a table, as percent ``of`` something, against its index (the stage); one panel per ``panel``.

    The axis of the percentages is logarithmic, from 0.05 to 100.
    """
    groups = list(dict.fromkeys(data["panel"]))
    figure, axes = panels(len(groups), 3.6, 2.8, sharey=True)
    for ax, group in zip(axes, groups, strict=True):
        part = data[data["panel"] == group].rename_axis("stage").reset_index()
        styles = ({"color": "0.6"}, {"color": "k"}, {"color": "tab:red", "ls": "--"})
        for column, style in zip(data.columns.drop("panel"), styles, strict=False):
            _line(ax, part.assign(**{column: 100 * part[column]}), column, label=column, **style)
        _over_stages(ax, ylabel=f"{of} (%)")
        caption(ax, group)
    axes[0].set(yscale="log", ylim=(0.05, 100))  # after all panels are drawn, because they share it
    axes[0].yaxis.set_major_formatter("{x:g}")
    legend(figure, axes)
    save(name)


def _line(ax, data: pd.DataFrame, y: str, **style) -> None:
    """Plot the mean over seeds against the stage, and a band from the lowest to the highest value of any seed."""
    span = {"errorbar": ("pi", 100), "err_kws": {"alpha": 0.15, "lw": 0}}
    sns.lineplot(data, x="stage", y=y, ax=ax, legend=False, **span, **style)


def _over_stages(ax, **labels) -> None:
    ax.set(xlabel="stage (times merged)", **labels)
    ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
