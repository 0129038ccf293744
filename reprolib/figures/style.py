"""Style and palette of all figures."""

import zlib

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from reprolib import paths
from reprolib.files import replacing

# BUC is blue, DBC orange; without regularizer the same hue is lighter, released programs are darker; other criteria
# have their own hues near blue; sorted images have a stronger hue than shuffled ones; the rest is grey.
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
    "dbc_but_exact_update": "#66a61e",
    "dbc_but_plain_head": "#a6761d",
    "dbc_released_sorted": "#d7301f",
    "dbc_released_but_table_start": "#807dba",
    "dbc_released_but_table_start_sorted": "#54278f",
    "dbc_released_but_new_means": "#74c476",
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
    "dbc_but_exact_update": "DBC, Eq. 3 after each merge",
    "dbc_but_plain_head": "DBC, nothing between the head's layers",
    "buc_ward": "Ward",
    "oim": "OIM (no merging)",
    "supervised": "supervised",
}


def color_of(recipe: str):
    """Return the recipe's color; a recipe that is not in the palette also has the same color in every figure."""
    return COLORS.get(recipe.removesuffix("_cifar10")) or plt.get_cmap("Dark2")(zlib.crc32(recipe.encode()) % 8)


def label_of(recipe: str, others: dict[str, str] | None = None) -> str:
    """Return the recipe's name for legends: from ``others``, else from the defaults, else the recipe's own name."""
    return (others or {}).get(recipe) or LABELS.get(recipe.removesuffix("_cifar10"), recipe)


def use_style() -> None:
    """Set the style of all figures, and show tables completely instead of truncating them."""
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
    """Write above a panel what it shows; dataset and network on separate lines, so that panels can stay close."""
    ax.annotate(text.replace(" · ", "\n"), (0, 1.03), xycoords="axes fraction", fontsize=7.5, color="0.3")


def panels(count: int, width: float, height: float, **options):
    """Make a figure with ``count`` panels of this size (inches), at most three side by side; return it and its axes."""
    rows = -(-count // 3)
    across = -(-count // rows)
    figure, axes = plt.subplots(rows, across, figsize=(width * across, height * rows), squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, axes.flat[:count]


def legend(figure, axes) -> None:
    """Put one legend under all panels, with each method once."""
    entries = {}
    for ax in axes.flat:
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    most = max(1, min(3, int(figure.get_figwidth() // 1.9)))  # as many as fit with the longest names
    rows = max(1, -(-len(entries) // most))
    columns = max(1, -(-len(entries) // rows))  # rows of equal length
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=8)
