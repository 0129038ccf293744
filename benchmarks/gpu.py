"""``python -m benchmarks.gpu``: training and extraction beside the bare network and a plain loop; whole runs too."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import pandas as pd
import torch
import typer

from benchmarks import inputs, loops, programs
from benchmarks.loops import QUICK, Sizes
from benchmarks.measure import in_turns
from reprolib import paths
from reprolib.devices import choose_device, choose_precision, cores
from reprolib.epochs import learning_rates
from reprolib.quality import cluster_validity
from reprolib.recipe import Recipe
from reprolib.record import provenance
from reprolib.timings import Benchmark, over_the_schedule

OURS, COMPILED, ROOF, PLAIN = "ours", "ours, compiled", "roof", "plain loop"
LARGE = 256  # frames in a batch of a run's extraction
PAPERS_BATCH = 16

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    device: Annotated[str | None, typer.Option(help="cuda, cuda:N, cpu [CUDA where there is one].")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Give it for each [On CUDA bf16 and tf32, else float32].")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, for a CPU too.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the file; results/bench/training for the full run, else none.")
    ] = None,
) -> None:
    """Time training and extraction at batch 16, 64, 256 against the roof and a plain loop; add up a whole run."""
    place, sizes = choose_device(device), QUICK if quick else Sizes()
    if place.type == "cpu" and not quick:
        raise typer.BadParameter("there is no CUDA device here: add --quick", param_hint="--device")
    try:
        chosen = [choose_precision(p, place) for p in precision or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--precision") from error
    if place.type == "cuda":
        torch.cuda.set_device(place)  # the one that is waited for
    folder = output or (None if quick else paths.BENCH / "training")
    benchmark = Benchmark(provenance(place) | {"precision": "as each row says", "cores": cores()}, [])
    precisions = chosen or (("bf16", "tf32") if place.type == "cuda" else ("float32",))
    with TemporaryDirectory() as files, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as aside:
        # Minutes of Python, on one core nearly all the time.
        on_host = aside.submit(_programs_on_host, sizes)
        loops.write_jpegs(sizes, Path(files))
        plain = {}  # of a batch size; it has one precision
        for chosen in precisions:
            for batch in sizes.batches:
                for piece in ("training", "extraction"):
                    if (piece, batch) not in plain:
                        plain[piece, batch] = _plain(piece, sizes, batch, place, Path(files))
                    row = measure(piece, sizes, batch, chosen, place, plain[piece, batch])
                    benchmark.rows.append(row)
                    typer.echo(f"{piece}, batch {batch}, {chosen}: {batch / row['seconds'][OURS]:,.0f} images a second")
                    _save(benchmark, folder)
        throughputs = list(benchmark.rows)
        for recipe in programs.PROGRAMS:
            here = parts_of_ours(recipe, sizes, place)
            for chosen in precisions:
                benchmark.rows += whole_run(recipe, sizes, chosen, throughputs, here, on_host.result())
        _save(benchmark, folder)
    for report in (throughput(benchmark.rows), parts(benchmark.rows)):
        typer.echo("\n" + report.to_string(index=False))


def _save(benchmark: Benchmark, folder: Path | None) -> None:
    if folder:
        benchmark.save(folder)


def _plain(piece: str, sizes: Sizes, batch: int, device: torch.device, files: Path) -> list[float]:
    return {"training": loops.train_plainly, "extraction": loops.extract_plainly}[piece](sizes, batch, device, files)


def measure(piece: str, sizes: Sizes, batch: int, precision: str, device: torch.device, plain: list[float]) -> dict:
    """A row: seconds of a batch by contender, their median and all of them."""
    row = {"piece": piece, "batch": batch, "precision": precision, "network": sizes.backbone}
    if piece == "training":
        ours, row["capture"] = loops.train_ours(sizes, batch, precision, device)
    else:
        ours = loops.extract_ours(sizes, batch, precision, device)
    bare = loops.roof(sizes, batch, precision, device, training=piece == "training")
    times = {OURS: ours, ROOF: bare, PLAIN: plain}
    if piece == "training" and device.type == "cuda":  # on a CPU torch.compile takes minutes
        times[COMPILED], row["compilation"] = loops.train_ours(sizes, batch, precision, device, compiled=True)
    row["seconds"] = {name: median(taken) for name, taken in times.items()}
    return row | {"times": {name: [round(t, 7) for t in taken] for name, taken in times.items()}}


def _programs_on_host(sizes: Sizes) -> dict[str, dict[int, float]]:
    """Seconds of the programs' stages by the clusters that they begin with, and of a ranking."""
    found = {
        recipe.name: {
            c: programs.stage_of_program(recipe, sizes.train, c) for c in programs.stages_measured(sizes.train)
        }
        for recipe in programs.PROGRAMS
    }
    return found | {"ranking": {0: programs.ranking_of_programs(sizes.query, sizes.gallery)}}


def parts_of_ours(recipe: Recipe, sizes: Sizes, device: torch.device) -> dict[str, float]:
    """Seconds of a run's merging, of one ranking, and of one stage's validity, on the device."""
    by_clusters = {
        c: median(programs.stage_of_ours(recipe, sizes.train, c, device)) for c in programs.stages_measured(sizes.train)
    }
    features, identities = inputs.features(sizes.train, programs.DIM, device=str(device))
    labels = inputs.clusters(identities, sizes.train // 2)
    call = {"": lambda: cluster_validity(features, labels)}
    return {
        "merging": over_the_schedule(recipe, sizes.train, by_clusters),
        "ranking": median(programs.ranking_of_ours(sizes.query, sizes.gallery, device)),
        "validity": median(in_turns(call, 1, device.type)[""]),
    }


def whole_run(
    recipe: Recipe, sizes: Sizes, precision: str, rows: list[dict], here: dict[str, float], on_host: dict
) -> list[dict]:
    """Seconds of each part of the recipe's whole schedule, ours and plain, added up from what was measured.

    A plain run asks for no validity.
    """
    stages = recipe.num_stages(sizes.train)
    epochs = sum(len(learning_rates(recipe, stage, video=False)) for stage in range(stages))
    measured = {(r["piece"], r["batch"]): r for r in rows if r["precision"] == precision}
    train = measured["training", PAPERS_BATCH]
    large = measured["extraction", max(b for _, b in measured if b <= LARGE)]
    epoch = {name: s * (sizes.train // PAPERS_BATCH) for name, s in train["seconds"].items()}
    image = {name: s / large["batch"] for name, s in large["seconds"].items()}
    tested = sizes.query + sizes.gallery
    merging = over_the_schedule(recipe, sizes.train, on_host[recipe.name])
    seconds = {
        "train": {OURS: epochs * epoch[OURS] + stages * train["capture"], PLAIN: epochs * epoch[PLAIN]},
        "extract": {name: (stages - 1) * sizes.train * image[name] for name in (OURS, PLAIN)},
        "validity": {OURS: (stages - 1) * here["validity"], PLAIN: 0.0},  # the first stage, before any merge, has none
        "merge": {OURS: here["merging"], PLAIN: merging},
        "evaluate": {
            OURS: (stages + 1) * (tested * image[OURS] + here["ranking"]),  # untrained, too
            PLAIN: stages * (tested * image[PLAIN] + on_host["ranking"][0]),
        },
    }
    return [
        {"piece": f"run: {part}", "recipe": recipe.name, "batch": PAPERS_BATCH, "precision": precision}
        | {"network": sizes.backbone, "run": taken}
        for part, taken in seconds.items()
    ]


def throughput(rows: list[dict]) -> pd.DataFrame:
    """Images a second by contender, share of the roof, and how many times the plain loop."""
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
        if "seconds" in row
    )


def parts(rows: list[dict]) -> pd.DataFrame:
    """Seconds of a whole run by part and together, and how many times as long the plain way takes."""
    found = [
        {"recipe": row["recipe"], "precision": row["precision"], "contender": name}
        | {"part": row["piece"].removeprefix("run: "), "seconds": seconds}
        for row in rows
        if "run" in row
        for name, seconds in row["run"].items()
    ]
    index = ["recipe", "precision", "contender"]
    table = pd.DataFrame(found).pivot_table(index=index, columns="part", values="seconds", sort=False)
    table["together"] = table.sum(axis=1)
    table["× ours"] = table["together"] / table["together"].xs(OURS, level="contender")
    return table.round(2).reset_index()


if __name__ == "__main__":
    app()
