"""The style and the palette of every figure."""

import zlib

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from reprolib import paths
from reprolib.files import replacing

# BUC blue, DBC orange; without regularizer the same hue lighter; released programs darker; other criteria in hues of
# their own, beside blue; images sorted in a stronger hue than shuffled; the rest grey.
COLORS = {
    "buc": "#1f77b4",
    "buc_unregularized": "#9ecae1",
    "buc_released": "#08306b",
    "buc_unregularized_average": "#7bccc4",
    "buc_maximum": "#6a51a3",
    "buc_centroid": "#35978f",
    "dbc": "#e6550d",
    "dbc_unregularized": "#fdae6b",
    "dbc_released": "#7f2704",
    "dbc_one_layer_head": "#e6ab02",
    "dbc_released_sorted": "#d7301f",
    "dbc_released_but_table_start": "#9e9ac8",
    "dbc_released_but_table_start_sorted": "#54278f",
    "dbc_released_but_new_means": "#a1d99b",
    "dbc_released_but_new_means_sorted": "#238b45",
    "buc_sorted": "#54278f",
    "buc_but_stale_means": "#fb9a99",
    "buc_but_stale_means_sorted": "#d7301f",
    "oim": "#7f7f7f",
    "supervised": "#252525",
}
LABELS = {
    "buc": "BUC",
    "buc_unregularized": "BUC without regularizer",
    "buc_released": "BUC, released program",
    "buc_unregularized_average": "BUC without regularizer, mean distance",
    "buc_maximum": "BUC, maximum distance",
    "buc_centroid": "BUC, centroid distance",
    "dbc": "DBC",
    "dbc_unregularized": "DBC without regularizer",
    "dbc_released": "DBC, released program",
    "dbc_one_layer_head": "DBC with BUC's head",
    "buc_ward": "Ward",
    "oim": "OIM (no merging)",
    "supervised": "supervised",
}


def color_of(recipe: str):
    """The recipe's color; one that the house does not know has the same one in every figure."""
    return COLORS.get(recipe.removesuffix("_cifar10")) or plt.get_cmap("Dark2")(zlib.crc32(recipe.encode()) % 8)


def label_of(recipe: str, others: dict[str, str] | None = None) -> str:
    """What a legend calls the recipe, ``others`` before the house's; one that neither knows by its name."""
    return (others or {}).get(recipe) or LABELS.get(recipe.removesuffix("_cifar10"), recipe)


def use_style() -> None:
    """The house style of every figure; and tables are shown whole, which pandas would cut."""
    pd.set_option("display.max_rows", 200, "display.max_colwidth", None)
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
    with replacing(paths.FIGURES / f"{name}.png") as partial:
        plt.gcf().savefig(partial, format="png", metadata={"Software": None})
    plt.show()
    plt.close()


def caption(ax, text: str) -> None:
    """What a panel shows, above its left end; dataset and network on a line each, so that panels stay close."""
    ax.annotate(text.replace(" · ", "\n"), (0, 1.03), xycoords="axes fraction", fontsize=7.5, color="0.3")


def panels(count: int, width: float, height: float, **options):
    """A figure of ``count`` panels of this size (inches), at most three side by side, and their axes."""
    rows = -(-count // 3)
    across = -(-count // rows)
    figure, axes = plt.subplots(rows, across, figsize=(width * across, height * rows), squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, axes.flat[:count]


def legend(figure, axes) -> None:
    """One legend under all panels, each method once."""
    entries = {}
    for ax in axes.flat:
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    most = max(1, min(3, int(figure.get_figwidth() // 1.9)))  # of the longest names, at this size
    rows = max(1, -(-len(entries) // most))
    columns = max(1, -(-len(entries) // rows))  # in even rows
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=8)
