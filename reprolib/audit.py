"""Differences between DBC's paper and its released program: each one as a recipe, and its effect on the results.

A difference is a set of recipe fields in which the two disagree. Its effect is measured from both ends: by adding it to
the paper's method, and by removing it from the program's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean, stdev

import numpy as np
import pandas as pd
from scipy import sparse

from reprolib.assessment import select_stage
from reprolib.columns import by_seed, column, columns
from reprolib.recipe import BUC, DBC, DBC_ONE_LAYER, DBC_RELEASED, DBC_UNREGULARIZED, OIM, Recipe
from reprolib.record import RunRecord

# Besides "test", which both programs do where the papers say "validation". BUC Section 3.2 trains until the first drop.
RULES = ("last", "first drop", "validation", "silhouette")


@dataclass(frozen=True)
class Difference:
    """What the paper says, what the program does, and the recipe fields concerned ("criterion.x" for the criterion)."""

    name: str
    paper: str
    program: str
    fields: tuple[str, ...]


DIFFERENCES = (
    Difference("start of the table", "zeros, as BUC (not said)", "means of the old clusters", ("table_start",)),
    Difference(
        "regularizer",
        "λ = 0.1 (text: 0.5)",
        "none (computed, not used)",
        ("criterion.regularizer", "criterion.regularizer_weight"),
    ),
    Difference("distance", "Euclidean", "squared", ("criterion.distance",)),
    Difference("ranking of pairs", "after each merge", "once a stage", ("criterion.ranking", "criterion.absorbed")),
    Difference("dispersion", "Σ / n (Eq. 3)", "Σ / n²", ("criterion.dispersion",)),
    Difference("rows of the table", "(V + v) / 2", "(V + v) / 2 at unit length", ("normalize_table",)),
    Difference("dropout", "before the normalization (not said)", "after the normalization", ("dropout_position",)),
    Difference("learning rate falls", "after 15 epochs", "after 16", ("learning_rate_drop",)),
    Difference(
        "embedding head", "2 layers to 1024 (inner not said)", "1 layer of 2048", ("embedding_dim", "embedding_layers")
    ),
)

# BUC as its program was before its authors found the error that DBC's program has: each stage starts from stale means.
BUC_STALE = replace(BUC, name="buc_but_stale_means", table_start="stale_means")

# Training without any merge, for differences that do not involve training.
FIRST_STAGE = replace(OIM, name="first_stage", stage_rule="first")


def taking(recipe: Recipe, difference: Difference, other: Recipe) -> Recipe:
    """Return ``recipe`` with this one difference set as in ``other``; the name says so."""
    own = {f: getattr(other, f) for f in difference.fields if "." not in f}
    of_criterion = [f.removeprefix("criterion.") for f in difference.fields if "." in f]
    criterion = replace(recipe.criterion, **{f: getattr(other.criterion, f) for f in of_criterion})
    slug = difference.fields[0].removeprefix("criterion.")
    return replace(recipe, name=f"{recipe.name}_but_{slug}", criterion=criterion, **own)


def from_zeros(recipe: Recipe) -> Recipe:
    """Return the recipe with each stage's table starting from zeros, as in BUC's paper."""
    return taking(recipe, DIFFERENCES[0], DBC)


def repaired(recipe: Recipe) -> Recipe:
    """The table starts from the means of the *new* clusters: a repair that neither program has."""
    return replace(recipe, name=f"{recipe.name}_but_new_means", table_start="means")


def exactly_updated(recipe: Recipe) -> Recipe:
    """After each merge the dispersion is that of its definition (DBC Eq. 3), where the paper uses Eq. 7."""
    return replace(recipe.changed(dispersion_update="exact"), name=f"{recipe.name}_but_exact_update")


def plainly_headed(recipe: Recipe) -> Recipe:
    """Nothing between the two layers of DBC's head, of which the paper says nothing; ours has BatchNorm and ReLU."""
    return replace(recipe.changed(embedding_between="nothing"), name=f"{recipe.name}_but_plain_head")


def in_order(recipe: Recipe) -> Recipe:
    """Return the recipe on training images sorted by identity, as both released programs read them."""
    return replace(recipe, name=f"{recipe.name}_sorted", train_order="sorted")


def with_junk(recipe: Recipe) -> Recipe:
    """Return the recipe ranked on Market-1501's gallery with its junk, which gives the papers' count of 19,732."""
    return replace(recipe, name=f"{recipe.name}_with_junk", junk="in_gallery")


def paper_side() -> dict[str, Recipe]:
    """Return DBC as in the paper with one behavior of the program each, keyed by it; two are recipes of exhibits."""
    exhibits = {"regularizer": DBC_UNREGULARIZED, "embedding head": DBC_ONE_LAYER}
    return {f"{d.name}: {d.program}": exhibits.get(d.name) or taking(DBC, d, DBC_RELEASED) for d in DIFFERENCES}


def program_side() -> dict[str, Recipe]:
    """Return DBC as released with one behavior of the paper each; not dispersion, which does not affect its ranking."""
    return {f"{d.name}: {d.paper}": taking(DBC_RELEASED, d, DBC) for d in DIFFERENCES if d.name != "dispersion"}


def prices(
    records: Sequence[RunRecord], base: Recipe, changed: dict[str, Recipe], metric: str = "rank-1"
) -> pd.DataFrame:
    """Tabulate by change, column and seed the points by which the change moves the kept stage of ``base``."""
    rows = []
    for name, members in columns(records).items():
        own = by_seed(members, base)
        for change, recipe in changed.items():
            other = by_seed(members, recipe)
            for seed in sorted(own.keys() & other.keys()):
                points = 100 * (other[seed].best[metric] - own[seed].best[metric])
                rows.append({"column": name, "change": change, "seed": seed, "points": points})
    return pd.DataFrame(rows, columns=["column", "change", "seed", "points"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarize :func:`prices` by change: mean and deviation over seeds, and the number of seeds that improved."""
    rows = {}
    for (place, change), group in table.groupby(["column", "change"], sort=False):
        points = group["points"].tolist()
        spread = f" ± {stdev(points):.1f}" if len(points) > 1 else ""
        rows.setdefault(change, {})[place] = f"{mean(points):+.1f}{spread} ({sum(p > 0 for p in points)}/{len(points)})"
    return pd.DataFrame(rows).T.rename_axis("change").fillna("")


def counted_in(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Renumber clusters as the released programs would have numbered them if the images had been in ``order``.

    ``labels`` is (stages, N), ``order`` (N,) lists the images from first to last. In both programs the smaller label
    survives a merge and the labels are then made compact, so that clusters are numbered by their first image.
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    numbered = np.empty_like(labels)
    for stage, own in enumerate(labels):
        first = np.full(own.max() + 1, len(order))
        np.minimum.at(first, own, place)
        numbered[stage] = np.argsort(np.argsort(first))[own]
    return numbered


def rows_seen(before: np.ndarray, after: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """Find whose mean each image gets in its cluster's row if the table starts from the clusters before the merge.

    ``before`` and ``after`` (N,) are the pseudo-labels of two successive stages, ``pids`` is (N,). Released code: row k
    holds the mean of the *old* cluster k, while label k denotes a *new* cluster. Returns shares of all N images: "own":
    the row still belongs to the image's own old cluster; "same identity": the row belongs to another cluster, counted
    by the share of that cluster's images that have the image's identity; "chance": that share if the rows of other
    clusters were assigned at random.
    """
    pids = np.unique(pids, return_inverse=True)[1]
    table = np.zeros((before.max() + 1, pids.max() + 1))  # share of each identity in each old cluster
    np.add.at(table, (before, pids), 1)
    table /= table.sum(1, keepdims=True)
    own = after == before
    at_random = (table.sum(0)[pids] - table[before, pids]) / (len(table) - 1)
    return {
        "own": float(own.mean()),
        "same identity": float(np.where(own, 0, table[after, pids]).mean()),
        "chance": float(np.where(own, 0, at_random).mean()),
    }


def rows_shared(before: np.ndarray, after: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """Measure how often two images in different clusters get rows of the same identity, whichever identity that is.

    The arguments are those of :func:`rows_seen`. Returns shares of image pairs: "of one identity" (pairs with the same
    identity, which training must not be able to recognize) and "any two".
    """
    pids = np.unique(pids, return_inverse=True)[1]
    ones, new, people = np.ones(len(pids)), after.max() + 1, pids.max() + 1
    old = sparse.csr_array((ones, (before, pids)), shape=(before.max() + 1, people))
    rows = (sparse.diags_array(1 / old.sum(1)) @ old).tocsr()[:new]  # (new, people): shares of row k
    members = sparse.csr_array((ones, (after, pids)), shape=(new, people))  # images of each identity in cluster k
    squared, sizes = (rows * rows).sum(1), members.sum(1)
    within = (members.T @ rows).toarray()  # (people, people): sum of the rows that the images of each identity get
    everyone, own = within.sum(0), (members * members).sum(1)
    alike = (within**2).sum() - (own * squared).sum()  # pairs within a cluster share a row and do not count
    pairs = (members.sum(0) ** 2).sum() - own.sum()
    any_alike = everyone @ everyone - (sizes**2 * squared).sum()
    any_pairs = sizes.sum() ** 2 - (sizes**2).sum()
    return {"of one identity": float(alike / max(pairs, 1)), "any two": float(any_alike / max(any_pairs, 1))}


def rows_by_stage(record: RunRecord, labels: np.ndarray, pids: np.ndarray) -> pd.DataFrame:
    """Tabulate :func:`rows_seen` and :func:`rows_shared` for every stage after the first, shuffled and sorted by pid.

    ``labels`` (stages, N) are the pseudo-labels that a run trained on, ``pids`` (N,) the identities of its images; both
    orders use the clusters of this run.

    Raises:
        ValueError: a run whose images were already sorted.
    """
    if record.settings["recipe"].get("train_order") == "sorted":
        raise ValueError(f"{record.name}: its images were sorted; use the same run on shuffled images")
    orders = {"shuffled": np.arange(len(pids)), "sorted by identity": np.argsort(pids, kind="stable")}
    rows = []
    for name, order in orders.items():
        for stage, (before, after) in enumerate(pairwise(counted_in(labels, order)), start=1):
            entry = {
                "recipe": record.settings["recipe"]["name"],
                "column": column(record),
                "order": name,
                "stage": stage,
            }
            rows.append(entry | rows_seen(before, after, pids) | rows_shared(before, after, pids))
    return pd.DataFrame(rows)


def average_precision(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Tabulate the kept stage's mAP by both definitions, a row per column: percent, means and deviation over runs."""
    rows = {}
    for name, members in columns(records).items():
        both = pd.DataFrame([100 * r.best["mAP"], 100 * r.best["mAP_step"]] for r in members)
        difference = both[1] - both[0]
        rows[name] = {"trapezoid": both[0].mean(), "step sum": both[1].mean(), "difference": difference.mean()}
        rows[name] |= {"± over runs": difference.std(), "runs": len(members)}
    return pd.DataFrame(rows).T.round(1).astype({"runs": int}).astype(object).fillna("")


def selection_losses(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Tabulate the points of rank-1 that each selection rule loses against the best stage on the test set.

    There is a row per record and rule. The column "last" holds the loss of the last stage of that record, so that each
    rule can be compared with it even though not all records support every rule.
    """
    rows = []
    for name, members in columns(records).items():
        for record in members:
            curve = record.curve("rank-1")
            for rule in (rule for rule in RULES if _has(record, rule)):
                chosen = _before_first_drop(curve) if rule == "first drop" else select_stage(record.stages, rule)
                lost, last = (100 * (max(curve) - curve[k]) for k in (chosen, -1))
                head = {"column": name, "recipe": record.settings["recipe"]["name"], "rule": rule}
                rows.append(head | {"lost": lost, "last": last})
    return pd.DataFrame(rows, columns=["column", "recipe", "rule", "lost", "last"])


def _before_first_drop(curve: Sequence[float]) -> int:
    """Return the last stage before the first one that is lower than its predecessor."""
    return next((stage for stage, (one, after) in enumerate(pairwise(curve)) if after < one), len(curve) - 1)


def _has(record: RunRecord, rule: str) -> bool:
    """Whether a record has the values that a rule needs, besides rank-1 on the test set."""
    if rule == "validation":
        return all("validation" in stage for stage in record.stages)
    return rule != "silhouette" or any(stage.get("validity") for stage in record.stages)
