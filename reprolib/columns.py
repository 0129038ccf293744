"""Columns: the records that may be compared with each other, namely those of one dataset, network and precision."""

from collections.abc import Sequence
from dataclasses import fields

from reprolib.recipe import Criterion, Recipe
from reprolib.record import RecordError, RunRecord
from reprolib.timings import Benchmark


def recipe_of(record: RunRecord) -> dict:
    """Return the settings of a record's recipe; fields newer than the record have their default, as in that run."""
    return _complete(record.settings["recipe"])


def _complete(recipe: dict) -> dict:
    found = {f.name: f.default for f in fields(Recipe)} | recipe
    if found["criterion"]:
        found["criterion"] = {f.name: f.default for f in fields(Criterion)} | found["criterion"]
    return found


def is_of(record: RunRecord, recipe: Recipe) -> bool:
    """Whether a record has a recipe's settings."""
    return recipe_of(record) == _complete(recipe.settings())


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

    Raises:
        RecordError: two runs that should have had the same images had not, so that their numbers must not be compared.
            Synthetic images are exempt: a few of their pixels are rounded otherwise on processors without AVX-512.
    """
    records = list(records)
    begun: dict[str, set[str]] = {}
    images: dict[tuple, RunRecord] = {}
    for record in records:
        begun.setdefault(column(record), set()).add(_weights(record))
        if isinstance(record, RunRecord) and record.settings["dataset"] not in ("synthetic", "synthetic-video"):
            drawn = column(record).split(" · ")[0], record.settings["seed"], recipe_of(record)["train_order"]
            other = images.setdefault(drawn, record)
            if other.settings["fingerprint"] != record.settings["fingerprint"]:
                both = f"{other.name} and {record.name} had different images and must not be compared"
                raise RecordError(f"{both}; move one out of results/runs, or give a Split of your own another name")
    found: dict[str, list] = {}
    for record in records:
        name = column(record)
        name += f", weights {_weights(record)[:8]}" if len(begun[name]) > 1 else ""
        found.setdefault(name, []).append(record)
    return found


def _weights(record: RunRecord | Benchmark) -> str:
    """Return the digest of the initial weights of a run, or their name."""
    return "" if isinstance(record, Benchmark) else record.settings["weights"].split()[-1]
