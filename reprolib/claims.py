"""Claims: sentences of the papers, and the margins by which they hold in the records of one column."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from scipy.stats import spearmanr

from reprolib.columns import by_seed
from reprolib.datasets import Split, fingerprint
from reprolib.quality import recall_across_cameras
from reprolib.recipe import Recipe
from reprolib.record import RunRecord

Margins = Callable[[list], list[float]]  # computed from the records, or benchmarks, of one column


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the margin by which it holds in each seed (positive: it holds)."""

    text: str
    margins: Margins
    unit: str = "points"  # unit of the margins
    over: str = "seeds"  # there is one margin for each of these


def higher(better: Recipe, worse: Recipe, metric: str = "rank-1", *, by: float = 0.0) -> Margins:
    """Points by which one recipe's kept stage exceeds another's, seed by seed, minus ``by``: what chance may give."""
    return _in_pairs(better, worse, lambda a, b: 100 * (a.best[metric] - b.best[metric]) - by)


def highest(best: Recipe, others: Sequence[Recipe], metric: str = "rank-1") -> Margins:
    """Points by which one recipe's kept stage exceeds the best of the others, for the seeds that all have.

    Recipes without any run in the column do not count among the others.
    """

    def margins(records: list[RunRecord]) -> list[float]:
        own, *rest = (by_seed(records, recipe) for recipe in (best, *others))
        rest = [found for found in rest if found]
        shared = sorted(set(own).intersection(*rest)) if rest else []  # no others, nothing to exceed
        return [100 * (own[s].best[metric] - max(r[s].best[metric] for r in rest)) for s in shared]

    return margins


def close(one: Recipe, other: Recipe, *, within: float) -> Margins:
    """``within`` points minus the absolute difference in rank-1 between the kept stages of two recipes."""
    return _in_pairs(one, other, lambda a, b: within - 100 * abs(a.best["rank-1"] - b.best["rank-1"]))


def beyond_spread(better: Recipe, worse: Recipe) -> Margins:
    """Points by which a mean lead in rank-1 exceeds its standard deviation over the seeds; needs at least two seeds."""

    def margins(records: list[RunRecord]) -> list[float]:
        leads = higher(better, worse)(records)
        return [mean(leads) - stdev(leads)] if len(leads) > 1 else []

    return margins


def beyond_control(
    pair: tuple[Recipe, Recipe], control: tuple[Recipe, Recipe], lead: Callable[[Recipe, Recipe], Margins] = higher
) -> Margins:
    """Margin by which the first of ``pair`` leads the second, minus that of ``control``, for the seeds that all have.

    ``lead`` gives one margin per seed; a seed without a margin in either pair is left out. So a difference is tested
    that both pairs may show by chance, but only the first for the reason in question.
    """

    def margins(records: list[RunRecord]) -> list[float]:
        found = [by_seed(records, recipe) for recipe in (*pair, *control)]
        of_seeds = [[runs[seed] for runs in found] for seed in sorted(set(found[0]).intersection(*found[1:]))]
        leads = [(lead(*pair)(runs), lead(*control)(runs)) for runs in of_seeds]
        return [own[0] - other[0] for own, other in leads if own and other]

    return margins


def earlier(first: Recipe, second: Recipe) -> Margins:
    """Number of stages by which one recipe's best stage comes before another's, where both are after a merge."""
    return _in_pairs(first, second, lambda a, b: b.selected - a.selected if a.selected and b.selected else None)


def ahead_from(stage: int, better: Recipe, worse: Recipe) -> Margins:
    """Points of rank-1 by which one recipe leads on average from a stage on (DBC Fig. 5), over the stages both have."""

    def lead(a: RunRecord, b: RunRecord) -> float | None:
        return _mean_lead(*([100 * value for value in run.curve("rank-1")[stage:]] for run in (a, b)))

    return _in_pairs(better, worse, lead)


def rises(recipe: Recipe, unmerged: Recipe, metric: str = "rank-1") -> Margins:
    """Points gained from the first stage to the kept stage, minus those gained by training without merging.

    The kept stage is the best of many on the test set, so any method shows some gain.
    """

    def gain(record: RunRecord) -> float:
        return 100 * (record.best[metric] - record.curve(metric)[0])

    return _in_pairs(recipe, unmerged, lambda a, b: gain(a) - gain(b))


def declines(recipe: Recipe) -> Margins:
    """Points by which the mean rank-1 of the last three stages is below that of the three stages before them.

    At most half of all stages count as the last ones.
    """
    return _each(recipe, _late_fall)


def _late_fall(record: RunRecord) -> float:
    curve = record.curve("rank-1")
    few = min(3, len(curve) // 2)
    return 100 * (mean(curve[-2 * few : -few]) - mean(curve[-few:])) if few else 0.0


def begins_higher(recipe: Recipe) -> Margins:
    """Points of rank-1 by which the first stage, in which every image is a class, is above the untrained network."""
    return _each(recipe, lambda record: 100 * (record.curve("rank-1")[0] - record.untrained["rank-1"]))


# Agreement of a stage's clusters with the identities: the names in tables and figures, and in the records.
AGREEMENT = {"purity": "purity", "pair recall": "pair_recall", "adjusted Rand index": "adjusted_rand_index"}


def _percent(field: str) -> Callable[[dict], float | None]:
    return lambda stage: None if stage["quality"][field] is None else 100 * stage["quality"][field]


# What is good in the clusters of a stage, higher is better: percent of the images or of one person's pairs, or
# hundredths of an index; None if it is not known.
GOOD_IN_CLUSTERS: dict[str, Callable[[dict], float | None]] = {
    "few singletons": lambda stage: -100 * stage["quality"]["num_singletons"] / images_in(stage),
    "no large cluster": lambda stage: -100 * stage["quality"]["largest_cluster"] / images_in(stage),
    **{name: _percent(field) for name, field in AGREEMENT.items()},
    "silhouette": lambda stage: 100 * stage["validity"]["silhouette"] if stage.get("validity") else None,
}


def better_clusters(better: Recipe, worse: Recipe, measure: str) -> Margins:
    """Difference in one of ``GOOD_IN_CLUSTERS``, the mean over the stages after a merge; both have as many clusters.

    Only for seeds in which both records have the measure: the earliest have no silhouette.
    """
    good = GOOD_IN_CLUSTERS[measure]

    def margin(a: RunRecord, b: RunRecord) -> float | None:
        return _mean_lead(map(good, a.stages[1:]), map(good, b.stages[1:]))

    return _in_pairs(better, worse, margin)


def joins_across_cameras(split: Split, better: Recipe, worse: Recipe) -> Margins:
    """Difference in the percentage of one person's pairs from two cameras that are in one cluster.

    It is the mean over the stages after a merge, for runs on ``split``, the whole dataset, or on some of its
    identities. Runs on other images, or in another order, have no margin.
    """

    def shares(record: RunRecord) -> list[float]:
        people, seed = record.settings["identities"], record.settings["seed"]
        images = split.keep_identities(people, seed) if people else split
        if fingerprint(images.train) != record.settings["fingerprint"]:
            return []
        identities, of_stages = record.stored_labels("pids"), record.pseudo_labels()[1:]
        return [100 * recall_across_cameras(labels, identities, images.train.camids) for labels in of_stages]

    def margin(a: RunRecord, b: RunRecord) -> float | None:
        if {a.settings["dataset"], b.settings["dataset"]} != {split.name}:
            return None
        return _mean_lead(shares(a), shares(b))

    return _in_pairs(better, worse, margin)


def images_in(stage: dict) -> int:
    """Return the number of training samples of a stage of a record."""
    return sum(size * count for size, count in stage["quality"]["size_histogram"])


def declines_below(people: Callable[[RunRecord], int], recipe: Recipe) -> Margins:
    """Number of people minus that of clusters in the stage after the best, for runs that decline in the last stages.

    Positive: the decline begins only when there are fewer clusters than people. A run without a stage after its best
    does not count.
    """

    def margin(record: RunRecord) -> float | None:
        after_best = record.stages[record.selected + 1 :]
        return people(record) - after_best[0]["num_clusters"] if after_best and _late_fall(record) > 0 else None

    return _each(recipe, margin)


def steadier(steady: Recipe, other: Recipe) -> Margins:
    """Points of rank-1 by which one recipe falls less below its best, mean of three later stages (DBC Fig. 5).

    Only for seeds in which both recipes have three stages after their best, and their best after a merge.
    """

    def fall(record: RunRecord) -> float | None:
        following = record.curve("rank-1")[record.selected + 1 :][:3]
        known = record.selected and len(following) == 3
        return 100 * (record.best["rank-1"] - mean(following)) if known else None

    def margin(a: RunRecord, b: RunRecord) -> float | None:
        own, theirs = fall(a), fall(b)
        return None if own is None or theirs is None else theirs - own

    return _in_pairs(steady, other, margin)


def gradual(recipe: Recipe, unmerged: Recipe, metric: str = "rank-1", *, at_least: float = 0.8) -> Margins:
    """Spearman's rank correlation between stage and gain from merging, up to the kept stage, minus ``at_least``.

    The gain from merging is the curve minus that of training without merging, which may also rise gradually. Only for
    seeds in which the kept stage is the fourth or a later one: fewer points may rise by chance.
    """

    def excess(merged: RunRecord, alone: RunRecord) -> float | None:
        gain = np.subtract(merged.curve(metric), alone.curve(metric))[: merged.selected + 1]
        if len(gain) < 4:
            return None
        return float(spearmanr(range(len(gain)), gain).statistic) - at_least if len(set(gain)) > 1 else -at_least

    return _in_pairs(recipe, unmerged, excess)


def joined(*parts: Margins) -> Margins:
    """The margins of all parts together, for example on images and on tracklets, whose recipes differ."""
    return lambda records: [margin for part in parts for margin in part(records)]


def _mean_lead(one: Iterable[float | None], other: Iterable[float | None]) -> float | None:
    """Return the mean difference over the stages that both runs have, without those where either value is unknown."""
    differences = [a - b for a, b in zip(one, other, strict=False) if a is not None and b is not None]
    return mean(differences) if differences else None


def _each(recipe: Recipe, margin: Callable[[RunRecord], float | None]) -> Margins:
    """Return the margins of a recipe's runs, by seed, without those that have no margin."""

    def margins(records: list[RunRecord]) -> list[float]:
        found = [margin(record) for _, record in sorted(by_seed(records, recipe).items())]
        return [m for m in found if m is not None]

    return margins


def _in_pairs(one: Recipe, other: Recipe, margin: Callable[[RunRecord, RunRecord], float | None]) -> Margins:
    """Return the margins of the seeds that both recipes have, without those that have no margin."""

    def margins(records: list[RunRecord]) -> list[float]:
        a, b = by_seed(records, one), by_seed(records, other)
        found = [margin(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]
        return [m for m in found if m is not None]

    return margins
