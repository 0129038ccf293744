"""Claims: sentences of the papers, and the margins by which they hold in the records of one column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import mean, stdev

import numpy as np
from scipy.stats import spearmanr

from reprolib.recipe import Criterion, Recipe
from reprolib.record import RecordError, RunRecord
from reprolib.timings import Benchmark

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
    """Points by which one recipe's kept stage exceeds the best of the others, for the seeds that all have."""

    def margins(records: list[RunRecord]) -> list[float]:
        own, *rest = (by_seed(records, recipe) for recipe in (best, *others))
        shared = sorted(set(own).intersection(*rest)) if rest else []  # no others, nothing to exceed
        return [100 * (own[s].best[metric] - max(r[s].best[metric] for r in rest)) for s in shared]

    return margins


def close(one: Recipe, other: Recipe, *, within: float, metric: str = "rank-1") -> Margins:
    """``within`` points minus the absolute difference between the kept stages of two recipes."""
    return _in_pairs(one, other, lambda a, b: within - 100 * abs(a.best[metric] - b.best[metric]))


def beyond_spread(better: Recipe, worse: Recipe, metric: str = "rank-1") -> Margins:
    """Points by which a recipe's mean lead exceeds its standard deviation over the seeds; needs at least two seeds."""

    def margins(records: list[RunRecord]) -> list[float]:
        leads = higher(better, worse, metric)(records)
        return [mean(leads) - stdev(leads)] if len(leads) > 1 else []

    return margins


def within_spread(one: Recipe, other: Recipe, metric: str = "rank-1") -> Margins:
    """Points by which a mean difference is below its standard deviation over the seeds; needs at least two seeds."""

    def margins(records: list[RunRecord]) -> list[float]:
        differences = higher(one, other, metric)(records)
        return [stdev(differences) - abs(mean(differences))] if len(differences) > 1 else []

    return margins


def earlier(first: Recipe, second: Recipe) -> Margins:
    """Number of stages by which one recipe's best stage comes before another's."""
    return _in_pairs(first, second, lambda a, b: b.selected - a.selected)


def ahead_from(stage: int, better: Recipe, worse: Recipe, metric: str = "rank-1") -> Margins:
    """Points by which one recipe leads another on average from a stage on (DBC Fig. 5), over the stages both have."""

    def lead(a: RunRecord, b: RunRecord) -> float | None:
        pairs = list(zip(a.curve(metric)[stage:], b.curve(metric)[stage:], strict=False))
        return mean(100 * (one - other) for one, other in pairs) if pairs else None

    return _in_pairs(better, worse, lead)


def rises(recipe: Recipe, unmerged: Recipe, metric: str = "rank-1") -> Margins:
    """Points gained from the first stage to the kept stage, minus those gained by training without merging.

    The kept stage is the best of many on the test set, so any method shows some gain.
    """

    def gain(record: RunRecord) -> float:
        return 100 * (record.best[metric] - record.curve(metric)[0])

    return _in_pairs(recipe, unmerged, lambda a, b: gain(a) - gain(b))


def declines(recipe: Recipe, metric: str = "rank-1", *, last: int = 3) -> Margins:
    """Points by which the mean of the last stages is below that of the same number of stages before them.

    At most half of all stages count as the last ones.
    """

    def fall(record: RunRecord) -> float:
        curve = record.curve(metric)
        few = min(last, len(curve) // 2)
        return 100 * (mean(curve[-2 * few : -few]) - mean(curve[-few:])) if few else 0.0

    return lambda records: [fall(record) for _, record in sorted(by_seed(records, recipe).items())]


def steadier(steady: Recipe, other: Recipe, metric: str = "rank-1", *, after: int = 3) -> Margins:
    """Points by which one recipe falls less below its best than another, mean of ``after`` later stages (DBC Fig. 5).

    Only for seeds in which both recipes have that many stages after their best.
    """

    def fall(record: RunRecord) -> float | None:
        following = record.curve(metric)[record.selected + 1 :][:after]
        return 100 * (record.best[metric] - mean(following)) if len(following) == after else None

    def margin(a: RunRecord, b: RunRecord) -> float | None:
        own, theirs = fall(a), fall(b)
        return None if own is None or theirs is None else theirs - own

    return _in_pairs(steady, other, margin)


def gradual(recipe: Recipe, unmerged: Recipe, metric: str = "rank-1", *, at_least: float = 0.8) -> Margins:
    """Spearman's rank correlation between stage and gain from merging, up to the kept stage, minus ``at_least``.

    The gain from merging is the curve minus that of training without merging, which may also rise gradually.
    """

    def excess(merged: RunRecord, alone: RunRecord) -> float:
        gain = np.subtract(merged.curve(metric), alone.curve(metric))[: merged.selected + 1]
        return float(spearmanr(range(len(gain)), gain).statistic) - at_least if len(set(gain)) > 1 else -at_least

    return _in_pairs(recipe, unmerged, excess)


def _in_pairs(one: Recipe, other: Recipe, margin: Callable[[RunRecord, RunRecord], float | None]) -> Margins:
    """Return the margins of the seeds that both recipes have, without those that have no margin."""

    def margins(records: list[RunRecord]) -> list[float]:
        a, b = by_seed(records, one), by_seed(records, other)
        found = [margin(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]
        return [m for m in found if m is not None]

    return margins


def is_of(record: RunRecord, recipe: Recipe) -> bool:
    """Whether a record has a recipe's settings; a setting newer than the record has its default, as in that run."""
    then = {f.name: f.default for f in fields(Recipe)} | record.settings["recipe"]
    if then["criterion"]:
        then["criterion"] = {f.name: f.default for f in fields(Criterion)} | then["criterion"]
    return then == recipe.settings()


def by_seed(records: Sequence[RunRecord], recipe: Recipe) -> dict[int, RunRecord]:
    """Return a recipe's records in one column, by seed.

    Raises:
        RecordError: two records with the same seed.
    """
    found: dict[int, RunRecord] = {}
    for record in (r for r in records if is_of(r, recipe)):
        other = found.setdefault(record.settings["seed"], record)
        if other is not record:
            both = f"{other.name} and {record.name} are both runs of {recipe.name} with the same seed"
            raise RecordError(f"{both} in the same column; move one of them out of results/runs")
    return found


def column(record: RunRecord | Benchmark) -> str:
    """Return the column of a record (dataset, network, image size, precision) or of a benchmark (machine).

    Numbers of different columns are never mixed.
    """
    if isinstance(record, Benchmark):
        return record.column
    s = record.settings
    subset = f", {s['identities']} identities" if s["identities"] else ""
    subset += f", {s['samples']:,} samples" if s.get("samples") else ""
    subset += f", {s['images']}" if s.get("images") else ""
    height, width = s["image_size"]
    precision = f" {s['precision']}" if "precision" in s else ""  # missing: float32
    return f"{s['dataset']}{subset} · {s['backbone']} {pretrained(s['weights'])} {height}×{width}{precision}"


def pretrained(weights: str) -> str:
    """Return a column's name for the initial weights; ``weights`` begins with the name of the file."""
    name = weights.partition(" ")[0]
    return {"none": "from scratch"}.get(name, "ImageNet" if "imagenet" in name.lower() else name)


def columns(records: Sequence[RunRecord | Benchmark]) -> dict[str, list]:
    """Group records by column, in the given order.

    If the networks of a column started from different weight files, there is one column per file. This happens when
    different kinds of machines pretrained on the catalogue.
    """
    begun: dict[str, set[str]] = {}
    for record in records:
        begun.setdefault(column(record), set()).add(_weights(record))
    found: dict[str, list] = {}
    for record in records:
        name = column(record)
        name += f", weights {_weights(record)[:8]}" if len(begun[name]) > 1 else ""
        found.setdefault(name, []).append(record)
    return found


def _weights(record: RunRecord | Benchmark) -> str:
    """Return the digest of the initial weights of a run, or their name."""
    return "" if isinstance(record, Benchmark) else record.settings["weights"].split()[-1]
