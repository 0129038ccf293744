"""Tables: the papers' numbers, our numbers beside them, and the provenance of our numbers."""

from collections.abc import Sequence
from statistics import mean, stdev

import pandas as pd

from reprolib import paths
from reprolib.columns import by_seed, column, columns
from reprolib.files import replacing, slug
from reprolib.plan import PAPERS_NETWORK
from reprolib.recipe import RECIPES, Recipe
from reprolib.record import RunRecord
from reprolib.timings import Benchmark


def published(exhibit: str) -> pd.DataFrame:
    """Return the rows of ``data/published.csv`` for one table or figure, e.g. "BUC Table 1"."""
    file = paths.DATA / "published.csv"
    if not file.is_file():
        raise ValueError(f"{file}: the papers' numbers are missing; {paths.NO_CHECKOUT}")
    table = pd.read_csv(file, keep_default_na=False)
    rows = table[table["exhibit"] == exhibit]
    if rows.empty:
        raise ValueError(f"{exhibit!r} is not one of {', '.join(sorted(table['exhibit'].unique()))}")
    return rows


def as_published(exhibit: str, methods: dict[str, Recipe], *, dataset: str | None = None) -> pd.DataFrame:
    """Return the paper's numbers for the methods that we run, as rows of ``results.tidy`` in a column of their own.

    ``dataset`` is one of the exhibit's datasets; None means the first.
    """
    rows = published(exhibit)
    rows = rows[(rows["dataset"] == (dataset or rows["dataset"].iloc[0])) & rows["method"].isin(methods)]
    wide = rows.assign(value=rows["value"].astype(float)).pivot(index="method", columns="metric", values="value")
    wide = wide.reindex([name for name in methods if name in wide.index])
    wide.insert(0, "column", f"the paper: {rows['dataset'].iloc[0]} · {PAPERS_NETWORK[0]} ImageNet")
    wide.insert(1, "recipe", [methods[name].name for name in wide.index])
    return wide.rename_axis(columns=None).reset_index(drop=True)


def compare(
    records: Sequence[RunRecord],
    exhibit: str,
    methods: dict[str, Recipe],
    *,
    metrics: Sequence[str] = ("rank-1", "mAP"),
) -> pd.DataFrame:
    """Show our numbers beside the paper's table: percent, mean over seeds and, from two seeds on, standard deviation.

    ``methods`` maps the exhibit's row names to our recipes. Rows that we do not run are shown as published, with the
    labels that they use if the paper says so, and with a star if its authors ran them. The paper's columns and ours
    differ in data or backbone, so that only orderings may be compared between them. The table is also written to
    ``results/tables`` as CSV.
    """
    paper = published(exhibit)
    index = list(dict.fromkeys([*paper["method"], *methods]))
    table = pd.DataFrame(index=pd.Index(index, name="method"))
    if paper["labels"].any():
        labels = paper.drop_duplicates("method").set_index("method")["labels"]
        table["paper", "labels"] = labels.reindex(index).fillna("")
    for dataset in dict.fromkeys(paper["dataset"]):
        for metric in metrics:
            rows = paper[(paper["dataset"] == dataset) & (paper["metric"] == metric)]
            stars = rows["mark"].map(lambda mark: "*" if mark == "starred" else "")
            values = rows["value"].map(lambda v: f"{float(v):.1f}") + stars
            table[f"paper: {dataset}", metric] = values.set_axis(rows["method"]).reindex(index).fillna("")
    for name, values in ours(records, methods, metrics=metrics).items():
        table[name] = values.reindex(index).fillna("")
    return _finished(table, exhibit)


def ours(
    records: Sequence[RunRecord],
    methods: dict[str, Recipe],
    *,
    metrics: Sequence[str] = ("rank-1", "mAP"),
    exhibit: str | None = None,
) -> pd.DataFrame:
    """Our part of :func:`compare`, for an exhibit without printed numbers: percent at the kept stage per method."""
    table = pd.DataFrame(index=pd.Index(methods, name="method"))
    for name, members in columns(records).items():
        for metric in metrics:
            of_ours = {"top-1": "rank-1"}.get(metric, metric)  # the same if the gallery is the training set
            kept = [[r.best[of_ours] for r in by_seed(members, recipe).values()] for recipe in methods.values()]
            table[f"ours: {name}", metric] = [_summary(fractions) for fractions in kept]
    return _finished(table, exhibit)


def stages(records: Sequence[RunRecord], exhibit: str, *, at: Sequence[int]) -> pd.DataFrame:
    """Show rank-1 and mAP at some stages, in percent: the paper's, and our mean over seeds for each column."""
    paper, table = published(exhibit), pd.DataFrame(index=pd.Index(at, name="stage"))
    for metric in ("rank-1", "mAP"):
        rows = paper[paper["metric"] == metric]
        values = dict(zip(rows["setting"].str.removeprefix("stage="), rows["value"], strict=True))
        table["paper: market1501", metric] = [values.get(str(stage), "") for stage in at]
    for name, members in columns(records).items():
        for metric in ("rank-1", "mAP"):
            reached = [[r.curve(metric)[stage] for r in members if stage < len(r.stages)] for stage in at]
            table[f"ours: {name}", metric] = [f"{100 * mean(values):.1f}" if values else "" for values in reached]
    return _finished(table, exhibit)


def _finished(table: pd.DataFrame, exhibit: str | None) -> pd.DataFrame:
    """Give the table a header of two rows; the table of an exhibit is also written to ``results/tables``."""
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    if exhibit is not None:
        with replacing(paths.TABLES / f"{slug(exhibit)}.csv") as partial:
            table.to_csv(partial)
    return table.rename_axis(None)  # the name would take a row of its own


def percent(metrics: dict[str, dict]) -> pd.DataFrame:
    """Show the metrics of single evaluations in percent, one row each."""
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
    """Show where the numbers come from: a row per machine, or a row for all runs that differ only in their seeds."""
    rows, of_a_run = [], ["seed", "stage kept", "minutes"]
    for record in records:
        if isinstance(record, Benchmark):
            rows.append({"column": record.column} | record.origin)
            continue
        s, p = record.settings, record.provenance
        how = f"{p['precision']}, compiled" if p.get("compiled") else p["precision"]
        rows.append(
            {
                "recipe": _titled(s["recipe"]),
                "column": column(record),
                "weights": _short(s["weights"]),
                "stages": f"0–{len(record.stages) - 1}",
                "kept by": s["recipe"]["selection"],
                "device": f"{p['device']}, {p['threads']} threads, {how}",
                "torch": p["versions"]["torch"],
                "commit": p["commit"],
                "seed": str(s["seed"]),
                "stage kept": str(record.selected),
                "minutes": f"{p['seconds'] / 60:.1f}",
            }
        )
    table = pd.DataFrame(rows, dtype=object).fillna("")  # a run and a benchmark have different columns
    if "seed" not in table:
        return table
    same = table.columns.drop(of_a_run).tolist()
    return table.groupby(same, sort=False, as_index=False)[of_a_run].agg(", ".join)


def _short(weights: str) -> str:
    """Shorten the name of the initial weights: for a file, its name and the first digits of its digest."""
    name, *digest = weights.split()[-2:]
    return " ".join([name, *(d[:8] for d in digest)])


def _titled(recipe: dict) -> str:
    """Return a recipe's name, and the fields in which it differs from our recipe of that name.

    A name that only begins like ours says how the criterion differs; then only the other fields are listed.
    """
    house = RECIPES.get(recipe["name"]) or max(
        (own for name, own in RECIPES.items() if recipe["name"].startswith(f"{name}_")),
        key=lambda own: len(own.name),
        default=None,
    )
    ours = house.settings() if house else recipe
    pairs = [(recipe, ours)]
    pairs += [(recipe["criterion"] or {}, ours["criterion"] or {})] if recipe["name"] in RECIPES else []
    others = [
        f"{k}={v}" for own, its in pairs for k, v in own.items() if k not in ("name", "criterion") and its.get(k) != v
    ]
    return ", ".join([recipe["name"], *others])


def compare_counts(counts: dict[str, dict]) -> pd.DataFrame:
    """Show DBC Table I with its errors corrected, and our counts: identities and samples of each set."""
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
    return _finished(pd.DataFrame(rows).T, "DBC Table I")
