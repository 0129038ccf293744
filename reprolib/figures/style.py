"""The style and the palette of every figure."""

import zlib

import matplotlib.pyplot as plt
import seaborn as sns

from reprolib import paths

# BUC blue, DBC orange; without regularizer the same hue lighter; released programs darker; the rest grey.
COLORS = {
    "buc": "#1f77b4",
    "buc_unregularized": "#9ecae1",
    "buc_released": "#08306b",
    "buc_maximum": "#6baed6",
    "buc_centroid": "#4292c6",
    "dbc": "#e6550d",
    "dbc_unregularized": "#fdae6b",
    "dbc_released": "#7f2704",
    "dbc_one_layer_head": "#fd8d3c",
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
    "buc_maximum": "BUC, maximum linkage",
    "buc_centroid": "BUC, centroid linkage",
    "dbc": "DBC",
    "dbc_unregularized": "DBC without regularizer",
    "dbc_released": "DBC, released program",
    "dbc_one_layer_head": "DBC with BUC's head",
    "dbc_released_sorted": "the same, images sorted",
    "dbc_released_but_table_start": "released, but zeros",
    "dbc_released_but_table_start_sorted": "but zeros, images sorted",
    "dbc_released_but_new_means": "released, but new means",
    "dbc_released_but_new_means_sorted": "but new means, images sorted",
    "buc_sorted": "BUC, images sorted",
    "buc_but_stale_means": "BUC, but stale means",
    "buc_but_stale_means_sorted": "but stale means, images sorted",
    "buc_ward": "Ward",
    "oim": "OIM (no merging)",
    "supervised": "supervised",
}


def color_of(recipe: str):
    """The recipe's color; one that the house does not know has the same one in every figure."""
    return COLORS.get(recipe.removesuffix("_cifar10")) or plt.get_cmap("Dark2")(zlib.crc32(recipe.encode()) % 8)


def label_of(recipe: str) -> str:
    """What a legend calls the recipe; one that the house does not know by its name."""
    return LABELS.get(recipe.removesuffix("_cifar10"), recipe)


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
    columns = max(1, min(3, len(entries), int(figure.get_figwidth() // 1.9)))  # of the longest names, at this size
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=8)
