"""Records on disk, the papers' numbers, and what may be concluded: compare(), verdict(), provenance()."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pandas as pd

from reprolib import paths
from reprolib.pipeline import NETWORKS, PAPERS_NETWORK, run
from reprolib.recipe import Recipe
from reprolib.record import RecordError, RunRecord, load_record, write_json
from reprolib.timings import Benchmark, load_benchmark

Margins = Callable[[list], list[float]]  # from the records, or benchmarks, of one column


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and by how much it holds in each seed (positive: it holds)."""

    text: str
    margins: Margins
    unit: str = "points"  # of a margin
    digits: int = 1
    over: str = "seeds"  # what there is a margin for each of


def higher(better: Recipe, worse: Recipe, metric: str = "rank-1") -> Margins:
    """Points by which one recipe's kept stage exceeds another's, seed by seed."""

    def margins(records: list[RunRecord]) -> list[float]:
        a, b = (_by_seed(records, recipe) for recipe in (better, worse))
        return [100 * (a[seed].best[metric] - b[seed].best[metric]) for seed in sorted(a.keys() & b.keys())]

    return margins


def rises(recipe: Recipe, metric: str = "rank-1") -> Margins:
    """Points from the first stage, before any merge, to the stage kept."""

    def margins(records: list[RunRecord]) -> list[float]:
        chosen = _by_seed(records, recipe)
        return [100 * (chosen[seed].best[metric] - chosen[seed].curve(metric)[0]) for seed in sorted(chosen)]

    return margins


def load_or_run(
    recipes: Sequence[Recipe], *, dataset: str, seeds: Sequence[int] = (0,), source: str = "stored", **settings
) -> list[RunRecord]:
    """A record for every recipe and seed: read from the repository ("stored") or trained now ("run").

    ``settings`` are those of :func:`reprolib.run`: backbone, weights, image_size, identities, data_root, device.

    Raises:
        ValueError: an unknown source.
        RecordError: a stored record is missing; the message gives the command that makes it.
    """
    if source not in ("stored", "run"):
        raise ValueError(f'source={source!r} is not one of "stored", "run"')
    if source == "run":
        return [run(recipe, dataset, seed=seed, **settings) for recipe in recipes for seed in seeds]
    network = NETWORKS.get(dataset, PAPERS_NETWORK)
    wanted = {
        "dataset": dataset,
        "identities": settings.get("identities"),
        "backbone": settings.get("backbone") or network[0],
        "image_size": list(settings.get("image_size") or network[2]),
    }
    records = []
    for recipe in recipes:
        of_recipe = [r for r in stored([recipe]) if all(r.settings[k] == v for k, v in wanted.items())]
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
        if _is_of(record, recipe) and record.settings["dataset"] != other_than
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


def _is_of(record: RunRecord, recipe: Recipe) -> bool:
    """Same settings; one that is newer than the record counts by its default, which is what the record ran with."""
    defaults = {f.name: f.default for f in fields(Recipe)}
    return defaults | record.settings["recipe"] == asdict(recipe)


def _by_seed(records: list[RunRecord], recipe: Recipe) -> dict[int, RunRecord]:
    return {r.settings["seed"]: r for r in records if _is_of(r, recipe)}


def column(record: RunRecord | Benchmark) -> str:
    """What numbers stand under and are never mixed: dataset, backbone and image size; the machine of a benchmark."""
    if isinstance(record, Benchmark):
        return record.column
    s = record.settings
    subset = f", {s['identities']} identities" if s["identities"] else ""
    height, width = s["image_size"]
    weights = s["weights"].split()[0]
    pretrained = {"none": "from scratch"}.get(weights, "ImageNet" if "imagenet" in weights.lower() else weights)
    return f"{s['dataset']}{subset} · {s['backbone']} {pretrained} {height}×{width}"


def columns(records: Sequence[RunRecord | Benchmark]) -> dict[str, list]:
    """Records by the column that they stand under, in the order given."""
    found: dict[str, list] = {}
    for record in records:
        found.setdefault(column(record), []).append(record)
    return found


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
    for name, members in columns(records).items():
        for metric in metrics:
            table[f"ours: {name}", metric] = [
                _summary([r.best[metric] for r in _by_seed(members, methods[m]).values()]) if m in methods else ""
                for m in index
            ]
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


def judge(margins: list[float]) -> str:
    """Reproduced: it holds in every seed; partly: on average; not reproduced; not attempted: no run."""
    if not margins:
        return "not attempted"
    if min(margins) > 0:
        return "reproduced"
    return "partly" if mean(margins) > 0 else "not reproduced"


def verdict(
    claim: Claim, records: Sequence[RunRecord | Benchmark], *, exhibit: str, expected: str, source: str = "stored"
) -> None:
    """Print the claim's verdict in each column, and keep it for the scorecard.

    Over several columns: reproduced if it is in all, not reproduced if in none, else partly.

    Raises:
        ValueError: the stored records give another verdict than the notebook expects.
    """
    rows = []
    for name, members in columns(records).items():
        margins = claim.margins(members)
        if margins:
            holds = sum(m > 0 for m in margins)
            rows.append({"column": name, "verdict": judge(margins), "margin": round(mean(margins), 2)})
            rows[-1] |= {"holds": holds, "seeds": len(margins)}
    found = {row["verdict"] for row in rows} or {"not attempted"}
    overall = found.pop() if len(found) == 1 else "partly"
    print(f"{overall.upper()}: {claim.text}")
    for r in rows:
        margin, holds = f"{r['margin']:+.{claim.digits}f} {claim.unit}", f"{r['holds']} of {r['seeds']} {claim.over}"
        print(f"  {r['verdict']} on {r['column']}: {margin}, holds in {holds}")
    if source == "stored" and overall != expected:
        raise ValueError(
            f"the stored records give {overall!r}, the notebook says {expected!r}: read it anew, then mend it"
        )
    slug = "".join(c if c.isalnum() else "_" for c in f"{exhibit} {claim.text}".lower())[:80]
    content = {"exhibit": exhibit, "claim": claim.text, "verdict": overall, "columns": rows}
    write_json(paths.VERDICTS / f"{slug}.json", content)


def scorecard(folder: Path) -> pd.DataFrame:
    """Every verdict that the notebooks left in ``folder``: exhibit, claim, verdict."""
    rows = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return pd.DataFrame(rows, columns=["exhibit", "claim", "verdict"])


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
