"""Measurements of the merging benchmarks, one file per machine: reading, tables, and comparison with DBC III-E."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reprolib.files import slug
from reprolib.recipe import RECIPES, Recipe
from reprolib.record import RecordError, write_json

FORMAT = 1  # increased when the fields of a row change their meaning
OURS = "ours"
PRODUCT = "product"  # contender: one plain matrix product
PROGRAM = "program's way"  # contender: the steps of the released program
RANKING = "ranking"  # name of a piece


@dataclass
class Benchmark:
    """The rows that one machine measured in one run."""

    provenance: dict  # device, threads, cores, versions, commit, date
    rows: list[dict]  # piece, size, and seconds and times by contender

    @property
    def column(self) -> str:
        """The column of its numbers: the machine and the number of threads used."""
        threads = self.provenance["threads"]
        used = "" if self.provenance["device_type"] == "cuda" else f", {threads} thread{'s' * (threads > 1)}"
        return self.provenance["device"] + used

    @property
    def origin(self) -> dict:
        """Hardware and software of the measurement."""
        known = self.provenance | self.provenance["versions"]
        return {k: known[k] for k in ("cores", "threads", "python", "torch", "numpy", "scipy", "commit", "date")}

    def file(self, folder: Path) -> Path:
        """Return ``<folder>/<machine>.json``."""
        return folder / f"{slug(self.column)}.json"

    def save(self, folder: Path) -> Path:
        """Write the benchmark to :meth:`file` and return its path."""
        file = self.file(folder)
        write_json(file, {"format": FORMAT, **asdict(self)})
        return file


def load_benchmark(file: Path) -> Benchmark:
    """Read a file written by :meth:`Benchmark.save`.

    Raises:
        RecordError: not a benchmark file, or one of another format.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise RecordError(f"{file}: written by another version of reprolib; measure again")
        return Benchmark(**content)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{file}: not a benchmark file ({error}); measure again") from error


def table(benchmark: Benchmark) -> pd.DataFrame:
    """Tabulate all rows: piece, size, our median, the product's, their ratio, the others, memory beyond the inputs."""
    return pd.DataFrame([_table_row(row) for row in benchmark.rows])


def _table_row(row: dict) -> dict:
    seconds, peak = row["seconds"], row["peak_bytes"][OURS]
    others = [f"{name} {_time(s)}" for name, s in seconds.items() if name not in (OURS, PRODUCT)]
    product = seconds.get(PRODUCT)
    return {
        "piece": " ".join(filter(None, [row["piece"], row["labels"]])),
        "size": _size(row),
        OURS: _time(seconds[OURS]),
        PRODUCT: _time(product) if product else "",
        "ours / product": f"{seconds[OURS] / product:.2f}" if product else "",
        "others": "; ".join(others),
        "extra MiB": "" if peak is None else f"{peak / 2**20:,.0f}",
        "exact": {True: "yes", False: "NO", None: ""}[row["exact"]],
        "repetitions": row["repetitions"],
        "note": row["note"],
    }


def _size(row: dict) -> str:
    if row["piece"] == "table update":
        return f"{row['images']} × {row['dim']:,} into {row['clusters']:,}"
    if row["queries"]:
        return f"{row['queries']:,} × {row['images']:,}, d {row['dim']:,}"
    return f"N {row['images']:,}, C {row['clusters']:,}, d {row['dim']:,}"


def _time(seconds: float) -> str:
    unit, factor = next(((u, f) for u, f in (("s", 1), ("ms", 1e3)) if seconds * f >= 1), ("µs", 1e6))
    return f"{seconds * factor:.3g} {unit}"


def growth(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Tabulate first stages (C = N) at full feature dimension: seconds and MiB per column, piece, contender and N."""
    found = []
    for benchmark in benchmarks:
        stages = [row for row in benchmark.rows if row["clusters"] == row["images"]]
        dim = max(row["dim"] for row in stages)
        for row in stages:
            if row["dim"] == dim and not row["piece"].endswith("tree"):
                head = {"column": benchmark.column, "piece": row["piece"], "dim": dim, "N": row["images"]}
                for contender, seconds in row["seconds"].items():
                    peak = row["peak_bytes"][contender]
                    mebibytes = np.nan if peak is None else peak / 2**20
                    found.append(head | {"contender": contender, "seconds": seconds, "MiB": mebibytes})
    return pd.DataFrame(found)


def _upper(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the sizes from a quarter of the largest up, where constant costs are no longer visible."""
    return rows[rows["N"] >= rows["N"].max() / 4].sort_values("N")


def exponent(rows: pd.DataFrame, quantity: str = "seconds") -> float:
    """Fit the slope of log quantity over log N, from a quarter of the largest N up; NaN if there is only one size."""
    rows = _upper(rows)
    if rows["N"].nunique() < 2:
        return float("nan")
    return float(np.polyfit(np.log(rows["N"]), np.log(rows[quantity]), 1)[0])


def exponents(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Show how a stage's time and memory grow from a quarter of its largest N up to that N, beside a plain product."""
    found = []
    for (column, piece), rows in growth(benchmarks).groupby(["column", "piece"], sort=False):
        ours, product = (rows[rows["contender"] == name] for name in (OURS, PRODUCT))
        low, high = _upper(ours)["N"].iloc[[0, -1]]
        times = [part.set_index("N")["seconds"] for part in (ours, product)]
        found.append(
            {"column": column, "piece": piece, "N": f"{low:,} to {high:,}"}
            | {name: f"× {t[high] / t[low]:.1f}" for name, t in zip((OURS, PRODUCT), times, strict=True)}
            | {"exponent": f"{exponent(ours):.2f}", "of the product": f"{exponent(product):.2f}"}
            | {"of memory": f"{exponent(ours, 'MiB'):.2f}", "ours / product": f"{times[0][high] / times[1][high]:.2f}"}
        )
    return pd.DataFrame(found)


def beside_programs(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Show the seconds of each step, ours and the released program's, and of all steps in a whole run."""
    found = []
    for benchmark in benchmarks:
        on_gpu = benchmark.provenance["device_type"] == "cuda"
        place = benchmark.column + (f"; host: {benchmark.provenance['host']}" if on_gpu else "")
        (ranking,) = (row["seconds"] for row in benchmark.rows if row["piece"] == RANKING)
        for name in dict.fromkeys(row["piece"] for row in benchmark.rows if row["piece"] != RANKING):
            recipe, rows = RECIPES[name], [row for row in benchmark.rows if row["piece"] == name]
            steps = {f"merging, from {row['clusters']:,} clusters": row["seconds"] for row in rows}
            merging, trained = whole_merging(recipe, rows), recipe.num_stages(rows[0]["images"])
            steps[f"a run: {trained - 1} mergings, {trained} rankings (ours {trained + 1})"] = {
                OURS: merging[OURS] + (trained + 1) * ranking[OURS],  # plus the ranking of the untrained network
                PROGRAM: merging[PROGRAM] + trained * ranking[PROGRAM],
            }
            found += [{"on": place, "recipe": name, "step": step} | s for step, s in steps.items()]
        found.append({"on": place, "recipe": "", "step": "a ranking"} | ranking)
    frame = pd.DataFrame(found)
    return frame.assign(ratio=frame[PROGRAM] / frame[OURS]).rename(
        columns={OURS: f"{OURS}, s", PROGRAM: f"{PROGRAM}, s", "ratio": "times as fast"}
    )


def whole_merging(recipe: Recipe, rows: Sequence[dict]) -> dict[str, float]:
    """Estimate the seconds of all mergings between a recipe's stages, by contender, from three measured stages.

    The other stages are assumed to lie on a parabola in the number of clusters, because a program goes through all
    pairs of images (BUC) or of clusters (DBC). The programs merge once more after the last stage, without any use; that
    merging is not counted.
    """
    images = rows[0]["images"]
    begins = images - recipe.merges_per_stage(images) * np.arange(recipe.num_stages(images) - 1)
    clusters = [row["clusters"] for row in rows]
    parabolas = {name: np.polyfit(clusters, [row["seconds"][name] for row in rows], 2) for name in rows[0]["seconds"]}
    return {name: float(np.polyval(parabola, begins).sum()) for name, parabola in parabolas.items()}


def grows_at_most(pieces: Sequence[str], power: float) -> Callable[[Sequence[Benchmark]], list[float]]:
    """Margins by which the exponent of each piece's time is below ``power``."""

    def margins(benchmarks: Sequence[Benchmark]) -> list[float]:
        exponents = [exponent(rows[rows["contender"] == OURS]) for rows in _of_pieces(benchmarks, pieces)]
        return [power - found for found in exponents if not np.isnan(found)]

    return margins


def costs_at_most(pieces: Sequence[str], times: float) -> Callable[[Sequence[Benchmark]], list[float]]:
    """Margins by which each piece, at its largest N, takes less than ``times`` the time of its plain product."""

    def margins(benchmarks: Sequence[Benchmark]) -> list[float]:
        largest = [rows[rows["N"] == rows["N"].max()] for rows in _of_pieces(benchmarks, pieces)]
        seconds = [rows.set_index("contender")["seconds"] for rows in largest]
        return [times - float(s[OURS] / s[PRODUCT]) for s in seconds]

    return margins


def later_costs_less(pieces: Sequence[str], *, by: float = 0.0) -> Callable[[Sequence[Benchmark]], list[float]]:
    """Share of a first stage's time that a later stage with half as many clusters saves, per piece, minus ``by``."""

    def margins(benchmarks: Sequence[Benchmark]) -> list[float]:
        rows = [row for benchmark in benchmarks for row in benchmark.rows if row["piece"] in pieces]
        seconds = {(r["piece"], r["dim"], r["images"], r["clusters"]): r["seconds"][OURS] for r in rows}
        later = {key: s for key, s in seconds.items() if key[3] == key[2] // 2}
        return [1 - s / seconds[*key[:3], key[2]] - by for key, s in later.items()]

    return margins


def _of_pieces(benchmarks: Sequence[Benchmark], pieces: Sequence[str]) -> list[pd.DataFrame]:
    rows = growth(benchmarks)
    return [rows[rows["piece"] == piece] for piece in pieces if (rows["piece"] == piece).any()]
