"""``python -m benchmarks.gpu``: training, extraction and whole runs, beside the bare network and a plain loop."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import pandas as pd
import torch
import typer

from benchmarks import inputs, loops, programs
from benchmarks.loops import QUICK, Sizes
from benchmarks.measure import in_turns, open_device, summary
from reprolib import paths
from reprolib.devices import choose_precision, cores
from reprolib.epochs import learning_rates
from reprolib.quality import cluster_validity
from reprolib.recipe import Recipe
from reprolib.record import cpu_name, provenance
from reprolib.timings import OURS, PROGRAM, RANKING, Benchmark, load_benchmark, whole_merging

COMPILED, ROOF, PLAIN = "ours, compiled", "roof", "plain loop"
VALIDITY, RUN = "validity", "a run"  # pieces
LARGE = 256  # frames per batch in the extraction of a run
PAPERS_BATCH = 16

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    device: Annotated[
        str | None, typer.Option(help="Device: cuda, cuda:N or, with --quick, cpu. Default: CUDA if available.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Precision to measure; repeat for several. Default: bf16 and tf32 on CUDA, else float32."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use tiny sizes, as a test; also works on a CPU.")] = False,
    runs: Annotated[
        bool,
        typer.Option(help="Also add up whole runs; the merging of the released programs takes minutes on the host."),
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the result file. Default: results/bench/training for the full run, otherwise no file."
        ),
    ] = None,
) -> None:
    """Time training and extraction at batch sizes 16, 64 and 256, beside the bare network (roof) and a plain loop.

    Whole runs are then added up from these times.
    """
    place, sizes = open_device(device), QUICK if quick else Sizes()
    if place.type == "cpu" and not quick:
        raise typer.BadParameter("there is no CUDA device here; add --quick to measure on a CPU", param_hint="--device")
    try:
        asked = [choose_precision(p, place) for p in precision or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--precision") from error
    folder = output or (None if quick else paths.BENCH / "training")
    known = provenance(place) | {"precision": "as each row says", "host": cpu_name(), "cores": cores()}
    precisions = asked or (("bf16", "tf32") if place.type == "cuda" else ("float32",))
    benchmark = Benchmark(known, _measured(folder, known) if folder else [])
    done = {(row["piece"], row.get("batch") or row.get("clusters"), row.get("precision")) for row in benchmark.rows}

    def add(row: dict) -> None:
        benchmark.rows.append(row)
        if folder:
            benchmark.save(folder)

    with TemporaryDirectory() as files:
        loops.write_jpegs(sizes, Path(files))
        plain = {(r["piece"], r["batch"]): r["times"][PLAIN] for r in benchmark.rows if "batch" in r}
        for chosen in precisions:
            for batch in sizes.batches:
                for piece in ("training", "extraction"):
                    if (piece, batch, chosen) in done:
                        continue
                    if (piece, batch) not in plain:
                        plain[piece, batch] = _plain(piece, sizes, batch, place, Path(files))
                    row = measure(piece, sizes, batch, chosen, place, plain[piece, batch])
                    add(row)
                    typer.echo(f"{piece}, batch {batch}, {chosen}: {batch / row['seconds'][OURS]:,.0f} images a second")
    typer.echo("\n" + throughput(benchmark.rows).to_string(index=False))
    if runs:
        if (VALIDITY, None, None) not in done:
            add(validity(sizes, place))
        for row in programs.measure(sizes.train, sizes.query, sizes.gallery, place, done=done):
            add(row)
        benchmark.rows[:] = [r for r in benchmark.rows if r["piece"] != RUN or r["precision"] not in precisions]
        for recipe in programs.PROGRAMS:
            for chosen in precisions:
                add(whole_run(recipe, sizes, chosen, benchmark.rows))
        typer.echo("\n" + whole_runs(benchmark.rows).to_string(index=False))


def _measured(folder: Path, known: dict) -> list[dict]:
    """Return the rows that an earlier command measured at this commit on this machine."""
    file = Benchmark(known, []).file(folder)
    if not file.exists():
        return []
    earlier = load_benchmark(file)
    return earlier.rows if earlier.provenance | {"date": ""} == known | {"date": ""} else []


def _plain(piece: str, sizes: Sizes, batch: int, device: torch.device, files: Path) -> list[float]:
    return {"training": loops.train_plainly, "extraction": loops.extract_plainly}[piece](sizes, batch, device, files)


def measure(piece: str, sizes: Sizes, batch: int, precision: str, device: torch.device, plain: list[float]) -> dict:
    """Measure a row: seconds per batch by contender (median and all values); for training also the one-time costs."""
    row = {"piece": piece, "batch": batch, "precision": precision, "network": sizes.backbone}
    times = {}
    if piece == "training":
        row["once"] = {}
        times[OURS], row["once"][OURS] = loops.train_ours(sizes, batch, precision, device)
        if device.type == "cuda" and batch == PAPERS_BATCH:  # half a minute each; minutes on a CPU
            _add_compiled(times, row["once"], sizes, batch, precision, device)
    else:
        times[OURS] = loops.extract_ours(sizes, batch, precision, device)
    times[ROOF] = loops.roof(sizes, batch, precision, device, training=piece == "training")
    times[PLAIN] = plain
    return row | summary(times)


def _add_compiled(times: dict, once: dict, sizes: Sizes, batch: int, precision: str, device: torch.device) -> None:
    """Add the compiled contender; if it fails, the times of the others remain valid."""
    torch.compiler.reset()  # a process can compile only a limited number of shapes
    try:
        times[COMPILED], once[COMPILED] = loops.train_ours(sizes, batch, precision, device, compiled=True)
    except RuntimeError as error:
        typer.echo(f"{COMPILED}, batch {batch}, {precision}: failed: {str(error)[:500]}", err=True)


def validity(sizes: Sizes, device: torch.device) -> dict:
    """Measure a row: seconds of cluster validity for half as many clusters as images; the programs don't compute it."""
    features, identities = inputs.features(sizes.train, programs.DIM, device=str(device))
    labels = inputs.clusters(identities, sizes.train // 2)
    times = in_turns({OURS: lambda: cluster_validity(features, labels)}, 5, device.type)
    return {"piece": VALIDITY, **summary(times)}


def whole_run(recipe: Recipe, sizes: Sizes, precision: str, rows: list[dict]) -> dict:
    """Compute a row: seconds of each part of the recipe's whole schedule by contender, from the measured rows.

    Our run also ranks the untrained network, and computes validity for every stage except the first, whose clusters are
    single images. One-time costs of a process (cuDNN's choices, compilation) are included for training only; they are
    measured in one process, in which compilation comes after cuDNN has chosen.
    """
    stages, tested = recipe.num_stages(sizes.train), sizes.query + sizes.gallery
    epochs = sum(len(learning_rates(recipe, stage, video=False)) for stage in range(stages))
    of = {(row["piece"], row["batch"]): row for row in rows if row.get("precision") == precision and "batch" in row}
    train, large = of["training", PAPERS_BATCH], of["extraction", max(b for _, b in of if b <= LARGE)]
    steps, image = epochs * (sizes.train // PAPERS_BATCH), {n: s / large["batch"] for n, s in large["seconds"].items()}
    alone = {row["piece"]: row["seconds"] for row in rows if row["piece"] in (RANKING, VALIDITY)}
    merging = whole_merging(recipe, [row for row in rows if row["piece"] == recipe.name])
    contenders = {
        name: {
            "train": steps * train["seconds"][name] + once["first stage"] + (stages - 1) * once["later stage"],
            "extract": stages * sizes.train * image[OURS],
            VALIDITY: (stages - 1) * alone[VALIDITY][OURS],
            "merge": merging[OURS],
            "evaluate": (stages + 1) * (tested * image[OURS] + alone[RANKING][OURS]),
        }
        for name, once in train["once"].items()
    }
    contenders[PLAIN] = {
        "train": steps * train["seconds"][PLAIN],
        "extract": (stages - 1) * sizes.train * image[PLAIN],
        VALIDITY: 0.0,
        "merge": merging[PROGRAM],
        "evaluate": stages * (tested * image[PLAIN] + alone[RANKING][PROGRAM]),
    }
    head = {"piece": RUN, "recipe": recipe.name, "stages": stages, "precision": precision}
    return head | {"contenders": contenders}


def throughput(rows: list[dict]) -> pd.DataFrame:
    """Tabulate images per second by contender, our share of the roof, and our speed relative to the plain loop."""
    return pd.DataFrame(
        {
            "piece": row["piece"],
            "batch": row["batch"],
            "precision": row["precision"],
            **{f"{name}, img/s": f"{row['batch'] / s:,.0f}" for name, s in row["seconds"].items()},
            "of the roof": f"{row['seconds'][ROOF] / row['seconds'][OURS]:.0%}",
            "× plain": f"{row['seconds'][PLAIN] / row['seconds'][OURS]:.1f}",
        }
        for row in rows
        if "batch" in row
    )


def whole_runs(rows: list[dict]) -> pd.DataFrame:
    """Tabulate the seconds of a whole run by part, in total and per stage on average, and relative to ours."""
    found = []
    for row in (row for row in rows if row["piece"] == RUN):
        ours = sum(row["contenders"][OURS].values())
        for name, parts in row["contenders"].items():
            together = sum(parts.values())
            head = {"recipe": row["recipe"], "precision": row["precision"], "contender": name}
            tail = {"together": together, "a stage": together / row["stages"], "× ours": together / ours}
            found.append(head | parts | tail)
    return pd.DataFrame(found).round(2)


if __name__ == "__main__":
    app()
