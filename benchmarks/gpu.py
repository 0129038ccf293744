"""``python -m benchmarks.gpu``: images a second of training and extraction beside the bare network and a plain loop."""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import pandas as pd
import torch
import typer

from benchmarks import inputs, loops
from benchmarks.loops import QUICK, Sizes
from benchmarks.measure import in_turns
from reprolib import merge_clusters, paths, rank_gallery
from reprolib.devices import choose_device, choose_precision, cores
from reprolib.quality import cluster_validity
from reprolib.recipe import BUC
from reprolib.record import provenance
from reprolib.timings import Benchmark

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
        precisions = [choose_precision(p, place) for p in precision or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--precision") from error
    if place.type == "cuda":
        torch.cuda.set_device(place)  # the one that is waited for
    folder = output or (None if quick else paths.BENCH / "training")
    benchmark = Benchmark(provenance(place) | {"precision": "as each row says", "cores": cores()}, [])
    with TemporaryDirectory() as files:
        loops.write_jpegs(sizes, Path(files))
        plain = {}  # of a batch size; it has one precision
        for chosen in precisions or (("bf16", "tf32") if place.type == "cuda" else ("float32",)):
            for batch in sizes.batches:
                for piece in ("training", "extraction"):
                    if (piece, batch) not in plain:
                        plain[piece, batch] = _plain(piece, sizes, batch, place, Path(files))
                    row = measure(piece, sizes, batch, chosen, place, plain[piece, batch])
                    benchmark.rows.append(row)
                    typer.echo(f"{piece}, batch {batch}, {chosen}: {batch / row['seconds'][OURS]:,.0f} images a second")
                    _save(benchmark, folder)
            benchmark.rows += whole_run(sizes, chosen, benchmark.rows, place)
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


def whole_run(sizes: Sizes, precision: str, rows: list[dict], device: torch.device) -> list[dict]:
    """Seconds of each part in a later stage and in BUC's whole schedule, added up from what was measured.

    The plain loop's merging and ranking are not measured and count as nothing; it asks for no validity.
    """
    epochs, stages = loops.epochs_of_a_run(sizes)
    measured = {(r["piece"], r["batch"]): r for r in rows if r["precision"] == precision}
    train = measured["training", PAPERS_BATCH]
    large = measured["extraction", max(b for _, b in measured if b <= LARGE)]
    epoch = {name: s * (sizes.train // PAPERS_BATCH) for name, s in train["seconds"].items()}
    image = {name: s / large["batch"] for name, s in large["seconds"].items()}
    tested = sizes.query + sizes.gallery
    merging, ranking, validity = _merging(sizes, device), _ranking(sizes, device), _validity(sizes, device)
    ours = {
        "train": (2 * epoch[OURS] + train["capture"], epochs * epoch[OURS] + stages * train["capture"]),
        "extract": (sizes.train * image[OURS], stages * sizes.train * image[OURS]),
        "validity": (validity, (stages - 1) * validity),  # the first stage, before any merge, has none
        "merge": (merging, (stages - 1) * merging),
        "evaluate": (tested * image[OURS] + ranking, (stages + 1) * (tested * image[OURS] + ranking)),
    }
    plain = {
        "train": (2 * epoch[PLAIN], epochs * epoch[PLAIN]),
        "extract": (sizes.train * image[PLAIN], (stages - 1) * sizes.train * image[PLAIN]),
        "validity": (0.0, 0.0),
        "merge": (0.0, 0.0),
        "evaluate": (tested * image[PLAIN], (stages + 1) * tested * image[PLAIN]),
    }
    return [
        {"piece": f"run: {part}", "batch": PAPERS_BATCH, "precision": precision, "network": sizes.backbone}
        | {"stage": {OURS: ours[part][0], PLAIN: plain[part][0]}, "run": {OURS: ours[part][1], PLAIN: plain[part][1]}}
        for part in ours
    ]


def _merging(sizes: Sizes, device: torch.device) -> float:
    features, _ = inputs.features(sizes.train, 2048, device=str(device))
    labels, merges = torch.arange(sizes.train, device=device), BUC.merges_per_stage(sizes.train)
    call = {"": lambda: merge_clusters(features, labels, criterion=BUC.criterion, merges_per_stage=merges)}
    return median(in_turns(call, sizes.repetitions, device.type)[""])


def _validity(sizes: Sizes, device: torch.device) -> float:
    features, identities = inputs.features(sizes.train, 2048, device=str(device))
    labels = inputs.clusters(identities, sizes.train // 2)
    call = {"": lambda: cluster_validity(features, labels)}
    return median(in_turns(call, 1, device.type)[""])


def _ranking(sizes: Sizes, device: torch.device) -> float:
    rows, _ = inputs.features(sizes.query + sizes.gallery, 2048, device=str(device))
    ids = inputs.ids(sizes.query, sizes.gallery)
    call = {"": lambda: rank_gallery(rows[: sizes.query], rows[sizes.query :], **ids)}
    return median(in_turns(call, sizes.repetitions, device.type)[""])


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
    """Seconds of a later stage and of a whole run, by part and together."""
    found = []
    for row in (row for row in rows if "run" in row):
        for spell in ("stage", "run"):
            found += [
                {"precision": row["precision"], "part": row["piece"].removeprefix("run: "), "contender": name}
                | {"of": f"a {spell}", "seconds": seconds}
                for name, seconds in row[spell].items()
            ]
    table = pd.DataFrame(found).pivot_table(
        index=["precision", "contender", "of"], columns="part", values="seconds", sort=False
    )
    table["together"] = table.sum(axis=1)
    return table.round(2).reset_index()


if __name__ == "__main__":
    app()
