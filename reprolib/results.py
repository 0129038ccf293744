"""Records on disk, the papers' numbers, and what may be concluded: compare(), verdict(), provenance()."""

import json
import subprocess
import sys
from collections.abc import Sequence
from statistics import mean, stdev

import numpy as np
import pandas as pd

from reprolib import paths
from reprolib.claims import (
    Claim,
    ahead_from,
    by_seed,
    close,
    column,
    columns,
    conclude,
    declines,
    earlier,
    gradual,
    higher,
    highest,
    is_of,
    judge,
    rises,
    scorecard,
    verdict,
)
from reprolib.datasets import DatasetError, load_dataset, summarize
from reprolib.jobs import Job, train
from reprolib.plan import NETWORKS, PAPERS_NETWORK
from reprolib.recipe import Recipe
from reprolib.record import RecordError, RunRecord, load_record, write_json
from reprolib.timings import Benchmark, load_benchmark

__all__ = [
    "Claim",
    "ahead_from",
    "close",
    "column",
    "compare",
    "compare_counts",
    "conclude",
    "dataset_counts",
    "declines",
    "earlier",
    "gradual",
    "higher",
    "highest",
    "judge",
    "load_or_measure",
    "load_or_run",
    "ours",
    "percent",
    "provenance",
    "pseudo_labels",
    "published",
    "rises",
    "scorecard",
    "stages",
    "stored",
    "tidy",
    "verdict",
]


def load_or_run(
    recipes: Sequence[Recipe], *, dataset: str, seeds: Sequence[int] = (0,), source: str = "stored", **settings
) -> list[RunRecord]:
    """A record for every recipe and seed, in that order: read from the repository ("stored") or trained now ("run").

    What other processes train meanwhile is left to them, and read when it is done.
    ``settings`` are those of :func:`reprolib.run`, such as backbone, image_size, identities or device.

    Raises:
        ValueError: an unknown source.
        RecordError: a stored record is missing; the message gives the command that makes it.
    """
    if source not in ("stored", "run"):
        raise ValueError(f'source={source!r} is not one of "stored", "run"')
    if source == "run":
        return train([Job(recipe, dataset, seed, settings) for recipe in recipes for seed in seeds])
    network = NETWORKS.get(dataset, PAPERS_NETWORK)
    wanted = {
        "dataset": dataset,
        "identities": settings.get("identities"),
        "samples": settings.get("samples"),
        "backbone": settings.get("backbone") or network[0],
        "image_size": list(settings.get("image_size") or network[2]),
    }
    records = []
    for recipe in recipes:
        of_recipe = [r for r in stored([recipe]) if all(r.settings.get(k) == v for k, v in wanted.items())]
        for seed in seeds:
            found = [r for r in of_recipe if r.settings["seed"] == seed]
            if not found:
                command = f"reprolib run --recipe {recipe.name} --dataset {dataset} --seed {seed}"
                raise RecordError(f'no stored record of this run; make it: {command}, or set source = "run"')
            records += found[:1]
    return records


def stored(recipes: Sequence[Recipe], *, other_than: str | None = None) -> list[RunRecord]:
    """The repository's finished records of these recipes, on every dataset or on every dataset but one."""
    records = [load_record(file) for file in sorted(paths.STORED_RUNS.glob("*.json"))]
    return [
        record
        for recipe in recipes
        for record in records
        if is_of(record, recipe) and record.settings["dataset"] != other_than
    ]


def load_or_measure(*, source: str = "stored", up_to: int = 8000) -> list[Benchmark]:
    """What each machine measured by ``make bench``; with "run" what this one measures now, at up to ``up_to`` images.

    Raises:
        ValueError: an unknown source.
        RecordError: nothing is stored.
    """
    if source not in ("stored", "run"):
        raise ValueError(f'source={source!r} is not one of "stored", "run"')
    if source == "run":
        options = ["--up-to", str(up_to), "--no-references", "--output", str(paths.BENCH)]
        subprocess.run(
            [sys.executable, "-m", "benchmarks", *options], cwd=paths.ROOT, stdout=subprocess.DEVNULL, check=True
        )
    files = sorted((paths.STORED_BENCH if source == "stored" else paths.BENCH).glob("*.json"))
    if not files:
        raise RecordError('nothing is measured yet; measure it: make bench, or set source = "run"')
    return [load_benchmark(file) for file in files]


def tidy(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a run and stage: column, recipe, seed, stage, num_clusters, kept, metrics in percent, quality."""
    rows = []
    for record in records:
        for stage in record.stages:
            percent = {k: 100 * v for k, v in stage["metrics"].items() if k != "num_valid_queries"}
            head = {"column": column(record), "recipe": record.settings["recipe"]["name"]}
            head |= {"seed": record.settings["seed"], "stage": stage["stage"], "num_clusters": stage["num_clusters"]}
            quality = {k: stage["quality"][k] for k in ("purity", "adjusted_rand_index")}
            rows.append(head | percent | quality | {"kept": stage["stage"] == record.selected})
    return pd.DataFrame(rows)


def pseudo_labels(record: RunRecord) -> np.ndarray:
    """The pseudo-labels that each stage trained on, (stages, N)."""
    for folder in (paths.LABELS, paths.STORED_LABELS):
        if (file := folder / f"{record.name}.npz").exists():
            with np.load(file) as content:
                return content["pseudo_labels"]
    raise RecordError(f"{record.name}: its labels are not stored; run it again with --fresh")


def dataset_counts(names: Sequence[str], *, source: str = "stored", data_root: str | None = None) -> dict[str, dict]:
    """``datasets.summarize`` of each dataset, as stored in ``results/datasets``.

    "run" counts those that are on this disk now, and keeps the counts.
    """
    counts = {}
    for name in names:
        try:
            counts[name] = summarize(load_dataset(name, root=data_root)) if source == "run" else None
        except DatasetError:
            counts[name] = None
        if counts[name]:
            write_json(paths.DATASETS / f"{name}.json", counts[name])
        else:
            counts[name] = json.loads((paths.STORED_DATASETS / f"{name}.json").read_text())
    return counts


def compare_counts(counts: dict[str, dict]) -> pd.DataFrame:
    """DBC Table I as printed, and what is counted here: identities and samples of each set."""
    paper, rows = published("DBC Table I"), {}
    for name in dict.fromkeys([*paper["dataset"], *counts]):
        own = paper[paper["dataset"] == name].set_index("metric")["value"]
        row = {}
        for part in ("train", "query", "gallery"):
            for place, unit in enumerate(("ids", "samples")):
                printed = own.get(f"{part}_{unit}", "")
                here = counts[name]["counts"][part][place] if name in counts else ""
                row[f"{part} {unit}", "paper"] = f"{int(float(printed)):,}" if printed != "" else ""
                row[f"{part} {unit}", "here"] = f"{here:,}" if here != "" else ""
        rows[name] = row
    table = pd.DataFrame(rows).T
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def published(exhibit: str) -> pd.DataFrame:
    """The rows of ``data/published.csv`` of one table or figure, e.g. "BUC Table 1"."""
    table = pd.read_csv(paths.DATA / "published.csv", keep_default_na=False)
    rows = table[table["exhibit"] == exhibit]
    if rows.empty:
        raise ValueError(f"{exhibit!r} is not one of {', '.join(sorted(table['exhibit'].unique()))}")
    return rows


def compare(
    records: Sequence[RunRecord],
    exhibit: str,
    methods: dict[str, Recipe],
    *,
    metrics: Sequence[str] = ("rank-1", "mAP"),
) -> pd.DataFrame:
    """The paper's table with ours beside it: percent, the mean over seeds and, from two seeds on, the deviation.

    ``methods`` names our recipes as the exhibit names its rows; rows that we do not run stand as published. The
    columns of the paper and ours are of other data or another backbone: only orderings may be compared across them.
    """
    paper = published(exhibit)
    index = list(dict.fromkeys([*paper["method"], *methods]))
    table = pd.DataFrame(index=pd.Index(index, name="method"))
    for dataset in dict.fromkeys(paper["dataset"]):
        for metric in metrics:
            rows = paper[(paper["dataset"] == dataset) & (paper["metric"] == metric)]
            values = rows.set_index("method")["value"].map(lambda v: f"{float(v):.1f}")
            table[f"paper: {dataset}", metric] = values.reindex(index).fillna("")
    for name, values in ours(records, methods, metrics=metrics).items():
        table[name] = values.reindex(index).fillna("")
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def ours(
    records: Sequence[RunRecord], methods: dict[str, Recipe], *, metrics: Sequence[str] = ("rank-1", "mAP")
) -> pd.DataFrame:
    """Our part of :func:`compare`: percent at the stage kept, a row a method."""
    table = pd.DataFrame(index=pd.Index(methods, name="method"))
    for name, members in columns(records).items():
        for metric in metrics:
            of_ours = {"top-1": "rank-1"}.get(metric, metric)  # of a gallery that is the training set: the same
            kept = [[r.best[of_ours] for r in by_seed(members, recipe).values()] for recipe in methods.values()]
            table[f"ours: {name}", metric] = [_summary(fractions) for fractions in kept]
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def stages(records: Sequence[RunRecord], exhibit: str, *, at: Sequence[int]) -> pd.DataFrame:
    """Rank-1 and mAP at some stages, in percent: the paper's, and the mean over seeds of each column of ours."""
    paper, table = published(exhibit), pd.DataFrame(index=pd.Index(at, name="stage"))
    for metric in ("rank-1", "mAP"):
        rows = paper[paper["metric"] == metric]
        values = dict(zip(rows["setting"].str.removeprefix("stage="), rows["value"], strict=True))
        table["paper: market1501", metric] = [values.get(str(stage), "") for stage in at]
    for name, members in columns(records).items():
        for metric in ("rank-1", "mAP"):
            curves = [r.curve(metric) for r in members]
            table[f"ours: {name}", metric] = [f"{100 * mean(c[stage] for c in curves):.1f}" for stage in at]
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def percent(metrics: dict[str, dict]) -> pd.DataFrame:
    """Metrics of single evaluations, a row each, in percent."""
    rows = {
        name: {k: f"{100 * m[k]:.1f}" for k in ("rank-1", "rank-5", "rank-10", "mAP")} for name, m in metrics.items()
    }
    return pd.DataFrame(rows).T


def _summary(fractions: list[float]) -> str:
    if not fractions:
        return ""
    spread = f" ± {100 * stdev(fractions):.1f} ({len(fractions)})" if len(fractions) > 1 else " (1)"
    return f"{100 * mean(fractions):.1f}{spread}"


def provenance(records: Sequence[RunRecord | Benchmark]) -> pd.DataFrame:
    """Where each number comes from, a row a run or a machine."""
    rows = []
    for record in records:
        if isinstance(record, Benchmark):
            rows.append({"column": record.column} | record.origin)
            continue
        s, p = record.settings, record.provenance
        rows.append(
            {
                "recipe": s["recipe"]["name"],
                "column": column(record),
                "seed": s["seed"],
                "stage kept": f"{record.selected} of {len(record.stages)} ({s['recipe']['selection']})",
                "device": f"{p['device']}, {p['threads']} threads, {p['precision']}",
                "torch": p["versions"]["torch"],
                "commit": p["commit"],
                "minutes": round(p["seconds"] / 60, 1),
                "weights": s["weights"],
            }
        )
    return pd.DataFrame(rows)
