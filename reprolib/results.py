"""Functions for the notebooks: records from disk or from new runs, and their tables, claims and verdicts."""

import json
import shlex
import subprocess
import sys
import warnings
from collections.abc import Sequence
from inspect import signature
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from reprolib import paths
from reprolib.claims import (
    AGREEMENT,
    Claim,
    ahead_from,
    begins_higher,
    better_clusters,
    beyond_control,
    beyond_spread,
    close,
    declines,
    declines_below,
    earlier,
    gradual,
    higher,
    highest,
    images_in,
    joined,
    joins_across_cameras,
    rises,
    steadier,
)
from reprolib.columns import by_seed, column, columns, is_of, pretrained, recipe_of
from reprolib.datasets import NAMES, DatasetError, load_dataset, summarize
from reprolib.jobs import Job, train
from reprolib.plan import NETWORKS, PAPERS_NETWORK, make_plan
from reprolib.recipe import RECIPES, Recipe
from reprolib.record import RecordError, RunRecord, load_record, require_source, write_json
from reprolib.tables import as_published, compare, compare_counts, ours, percent, provenance, stages
from reprolib.timings import Benchmark, load_benchmark
from reprolib.verdicts import beside_chance, conclude, scorecard, verdict

__all__ = [
    "Claim",
    "ahead_from",
    "as_published",
    "begins_higher",
    "beside_chance",
    "better_clusters",
    "beyond_control",
    "beyond_spread",
    "close",
    "column",
    "columns",
    "compare",
    "compare_counts",
    "conclude",
    "dataset_counts",
    "declines",
    "declines_below",
    "earlier",
    "gradual",
    "higher",
    "highest",
    "joined",
    "joins_across_cameras",
    "load_beside_programs",
    "load_or_measure",
    "load_or_run",
    "number_of_people",
    "ours",
    "percent",
    "provenance",
    "rises",
    "scorecard",
    "stages",
    "steadier",
    "stored",
    "tidy",
    "train_pids",
    "unfinished",
    "verdict",
]


def load_or_run(
    recipes: Sequence[Recipe], *, dataset: str, seeds: Sequence[int] = (0,), source: str = "stored", **settings
) -> list[RunRecord]:
    """Return a record per recipe and seed, in that order: from the repository ("stored") or trained now ("run").

    If several columns have a stored record, it is taken from the column that has most of the requested records. Runs
    that other processes are training are left to them, and read when they are finished. ``settings`` are arguments of
    :func:`reprolib.run`, such as backbone, image_size, identities or device.

    Raises:
        ValueError: an unknown source or setting.
        RecordError: a stored record is missing; the message gives the command that makes it, if there is one.
    """
    require_source(source)
    recipes = [None] if isinstance(recipes, Recipe | str) else list(recipes)
    if not all(isinstance(recipe, Recipe) for recipe in recipes):
        raise ValueError("recipes must be a list of recipes, such as [reprolib.BUC]")
    if isinstance(seeds, int):
        raise ValueError(f"seeds={seeds} must be a list of seeds, such as [0, 1, 2]")
    seeds = list(seeds)
    if isinstance(dataset, str) and dataset not in NAMES:
        raise ValueError(f"dataset {dataset!r} is not one of {', '.join(NAMES)}")
    if unknown := settings.keys() - (signature(make_plan).parameters.keys() - {"recipe", "seed"}):
        raise ValueError(f"unknown settings {sorted(unknown)}; use arguments of reprolib.run")
    if source == "run":
        return train([Job(recipe, dataset, seed, settings) for recipe in recipes for seed in seeds])
    return _from_disk(recipes, dataset, seeds, settings)


def _from_disk(recipes: Sequence[Recipe], dataset: str, seeds: Sequence[int], settings: dict) -> list[RunRecord]:
    """Return the stored records that fit, as for :func:`load_or_run`."""
    network = NETWORKS.get(dataset, PAPERS_NETWORK)
    wanted = {
        "dataset": dataset,
        "identities": settings.get("identities"),
        "samples": settings.get("samples"),
        "backbone": settings.get("backbone") or network[0],
        "image_size": list(settings.get("image_size") or network[2]),
    }
    wanted |= {"precision": settings["precision"]} if settings.get("precision") else {}
    began = pretrained(Path(settings.get("weights") or network[1]).name)

    def fits(record: RunRecord) -> bool:
        own = {"precision": "float32"} | record.settings
        return all(own.get(k) == v for k, v in wanted.items()) and pretrained(own["weights"]) == began

    fitting = sorted(filter(fits, stored()), key=lambda r: "precision" in r.settings)
    in_columns = [[by_seed(members, recipe) for recipe in recipes] for members in columns(fitting).values()]
    in_columns.sort(key=lambda of_recipe: sum(len(found.keys() & set(seeds)) for found in of_recipe), reverse=True)
    records = []
    for place, recipe in enumerate(recipes):
        for seed in seeds:
            found = [of_recipe[place][seed] for of_recipe in in_columns if seed in of_recipe[place]]
            if not found:
                raise RecordError(_missing(recipe, dataset, seed, settings))
            records.append(found[0])
    return records


def _missing(recipe: Recipe, dataset: str, seed: int, settings: dict) -> str:
    """Return the message for a missing record, with the command that makes it if the recipe is a named one."""
    said = f'no stored record of {recipe.name} on {dataset}, seed {seed}; set source = "run"'
    if places := list(columns([r for r in stored([recipe]) if r.settings["dataset"] == dataset])):
        said = f"{said}, or use the settings of one that is stored ({'; '.join(places)})"
    if RECIPES.get(recipe.name) != recipe:
        return said
    given = {"recipe": recipe.name, "dataset": dataset, "seed": seed} | settings
    given = {k: "x".join(map(str, v)) if k == "image_size" else v for k, v in given.items() if v not in (None, False)}
    words = [[f"--{k.replace('_', '-')}", *([] if v is True else [str(v)])] for k, v in given.items()]
    return f"{said}, or make it with: {shlex.join(['reprolib', 'run', *chain(*words)])}"


def stored(
    recipes: Sequence[Recipe] | None = None, *, other_than: str | None = None, at_least: int = 1
) -> list[RunRecord]:
    """Return the finished records of these recipes (None: all) in this repository, except those on ``other_than``.

    Columns (one dataset and network each) with fewer than ``at_least`` of the recipes are left out.
    """
    records = [load_record(file) for file in sorted(paths.STORED_RUNS.glob("*.json"))]
    records = [record for record in records if record.settings["dataset"] != other_than]
    found = records if recipes is None else [r for recipe in recipes for r in records if is_of(r, recipe)]
    compared = [
        members
        for members in columns(found).values()
        if len({record.settings["recipe"]["name"] for record in members}) >= at_least
    ]
    kept = {record.name for members in compared for record in members}
    return [record for record in found if record.name in kept]


def unfinished(dataset: str) -> list[RunRecord]:
    """Return the repository's records of interrupted runs on a dataset; they keep no stage and support no claim."""
    records = [load_record(file) for file in sorted(paths.STORED_UNFINISHED.glob("*.json"))]
    return [record for record in records if record.settings["dataset"] == dataset]


def load_or_measure(*, source: str = "stored", up_to: int = 8000) -> list[Benchmark]:
    """Return the stored measurements of ``make bench``; with "run", measure here and now at up to ``up_to`` images.

    Raises:
        ValueError: an unknown source.
        RecordError: no stored measurement.
    """
    require_source(source)
    if source == "run":
        options = ["--up-to", str(up_to), "--no-references", "--output", str(paths.BENCH)]
        subprocess.run(
            [sys.executable, "-m", "benchmarks", *options], cwd=paths.ROOT, stdout=subprocess.DEVNULL, check=True
        )
    files = sorted((paths.STORED_BENCH if source == "stored" else paths.BENCH).glob("*.json"))
    if not files:
        raise RecordError('no stored measurement; run make bench, or set source = "run"')
    return [load_benchmark(file) for file in files]


def load_beside_programs() -> list[Benchmark]:
    """Return the stored measurements of ``make bench-programs``: our steps beside those of the released programs."""
    return [load_benchmark(file) for file in sorted((paths.STORED_BENCH / "programs").glob("*.json"))]


def tidy(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Make a table, a row per run and stage: column, recipe, seed, stage, num_clusters, metrics, quality (%), kept.

    "singletons" and "largest cluster" are the percentages of the training samples in such clusters; the other measures
    of quality are those of ``reprolib.quality.ClusterQuality``.

    Raises:
        RecordError: two different recipes of one name in the same column; figures and tables would mix them.
    """
    rows, seen = [], {}
    in_columns = [(name, record) for name, members in columns(records).items() for record in members]
    for name, record in in_columns:
        called, own = record.settings["recipe"]["name"], recipe_of(record)
        other = seen.setdefault((name, called), own)
        if changed := [k for k in own if own[k] != other[k]]:
            raise RecordError(
                f"two recipes are called {called!r}, but differ in {', '.join(changed)}; run one of them under a name "
                "of its own: replace(recipe, name=...)"
            )
        for stage in record.stages:
            metrics = {k: v for k, v in stage["metrics"].items() if k != "num_valid_queries"}
            head = {"column": name, "recipe": called, "seed": record.settings["seed"]}
            head |= {"stage": stage["stage"], "num_clusters": stage["num_clusters"]}
            quality = {measure: stage["quality"][field] for measure, field in AGREEMENT.items()}
            quality |= {"singletons": stage["quality"]["num_singletons"] / images_in(stage)}
            quality |= {"largest cluster": stage["quality"]["largest_cluster"] / images_in(stage)}
            shares = {k: None if v is None else 100 * v for k, v in (metrics | quality).items()}
            rows.append(head | shares | {"kept": stage["stage"] == record.selected})
    return pd.DataFrame(rows)


def train_pids(record: RunRecord) -> np.ndarray:
    """Return the identities (N,) of the images that a run trained on without seeing them; only for diagnosis."""
    return record.stored_labels("pids")


def number_of_people(record: RunRecord) -> int:
    """Return the number of identities among the images that a run trained on; only for diagnosis."""
    identities = record.stored_labels("pids")
    return len(np.unique(identities[identities >= 0]))


def dataset_counts(names: Sequence[str], *, source: str = "stored", data_root: str | None = None) -> dict[str, dict]:
    """Return ``datasets.summarize`` of each dataset, as stored in ``results/datasets``.

    With "run" the datasets on this disk are counted now, and the counts are stored.

    Raises:
        ValueError: an unknown source.
        RecordError: a dataset without counts.
    """
    require_source(source)
    counts = {}
    for name in names:
        why = 'set source = "run" on a machine that has the dataset'
        if source == "run":
            try:
                counts[name] = summarize(load_dataset(name, root=data_root))
                write_json(paths.DATASETS / f"{name}.json", counts[name])
            except DatasetError as error:
                why = str(error)
                warnings.warn(f"{why}; shown are the stored counts, if there are any", stacklevel=2)
        if name not in counts:
            file = paths.STORED_DATASETS / f"{name}.json"
            if not file.is_file():
                raise RecordError(f"{name}: not counted yet; {why}")
            counts[name] = json.loads(file.read_text(encoding="utf-8"))
    return counts
