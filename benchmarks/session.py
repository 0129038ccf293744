"""``python -m benchmarks.session``: all GPU measurements, the most important first, within a given time.

Each piece is a process of its own with its output in ``<output>/logs``; a piece that fails or runs out of time does not
stop the others. The same command resumes: finished pieces are skipped, and runs resume after their last saved epoch.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from reprolib import paths
from reprolib.recipe import (
    BUC,
    BUC_UNREGULARIZED,
    DBC,
    DBC_ONE_LAYER,
    DBC_RELEASED,
    DBC_UNREGULARIZED,
    OIM,
    RECIPES,
    Recipe,
)
from reprolib.record import write_json

LAST_START = 10  # seconds that must be left to start a piece
METHODS = (OIM, BUC, BUC_UNREGULARIZED, DBC, DBC_UNREGULARIZED)
BUC_WEIGHTS, DBC_WEIGHTS = (0.001, 0.01, 0.03), (0.05, 0.5, 1)  # as in notebooks 07 and 14

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def pieces(output: Path, weights: Path | None, *, quick: bool = False) -> dict[str, list]:
    """Return the pieces by name, in order: a module's command line, or a recipe with dataset, seed and settings."""
    size = ["--quick"] if quick else []
    device = [] if quick else ["--device", "cuda"]
    throughput = ["-m", "benchmarks.gpu", *size, "--output", str(output / "bench" / "training")]
    bf16 = [] if quick else ["--precision", "bf16"]  # a command keeps the rows that an earlier one measured
    found = {"bench-gpu": [*throughput, *bf16, "--no-runs"]}
    bench = {"bench": ["-m", "benchmarks", *device, *size, "--output", str(output / "bench")]}
    cifar10 = {recipe.name: [recipe, "cifar10", 0, {}] for recipe in RECIPES.values() if "cifar10" in recipe.name}
    network = {"precision": "bf16"}  # in TF32 mobilenet_v2 was not seen to warm up
    network |= {} if weights is None else {"backbone": "mobilenet_v2", "weights": str(weights), "compiled": True}

    def market(*recipes: Recipe, seed: int = 0) -> dict[str, list]:
        return {f"market1501 {recipe.name} seed {seed}": [recipe, "market1501", seed, network] for recipe in recipes}

    def time_of_resnet50(precision: str) -> dict[str, list]:
        settings = {"backbone": "resnet50", "weights": "none", "precision": precision, "compiled": True}
        return {f"market1501 resnet50 {precision}": [BUC, "market1501", 0, settings]}

    found |= market(*METHODS) | time_of_resnet50("bf16") | bench
    found |= market(DBC_RELEASED, DBC_ONE_LAYER, *(BUC.with_linkage(linkage) for linkage in ("maximum", "centroid")))
    found |= market(*(BUC.with_weight(w) for w in BUC_WEIGHTS), *(DBC.with_weight(w) for w in DBC_WEIGHTS))
    found |= market(BUC_UNREGULARIZED.with_linkage("average"))
    found |= market(*METHODS, seed=1) | market(*METHODS, seed=2)
    found |= {"whole runs": [*throughput, *bf16]}  # takes minutes on the host
    found |= {"bench-gpu tf32": [*throughput, "--no-runs"]} | time_of_resnet50("tf32")
    return found | cifar10  # CIFAR-10 has four times the images, and so the steps


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Folder for records, tables and logs.")],
    minutes: Annotated[float, typer.Option(help="Total time in minutes.")] = 28,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets. Default: $REPROLIB_DATA, else data/.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights file of mobilenet_v2, for Market-1501. Default: ResNet-50 with imagenet weights."),
    ] = None,
    begins: Annotated[
        list[str] | None,
        typer.Option(help="Only pieces whose names begin with this, for example 'bench'; repeat for several."),
    ] = None,
    at_once: Annotated[
        int, typer.Option(help="Number of pieces to run in parallel; with more than one, benchmarks are left out.")
    ] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Use tiny sizes and the synthetic people, as a test.")] = False,
    only: Annotated[str, typer.Option(hidden=True, help="Run this piece here.")] = "",
) -> None:
    """Run the pieces that are not done yet; print a table of them and keep it in <output>/session.json."""
    end, output = time.monotonic() + 60 * minutes, output.resolve()
    todo = pieces(output, weights, quick=quick)
    if only:
        train(*todo[only], data_root=data_root, quick=quick)
        return
    (output / "logs").mkdir(parents=True, exist_ok=True)
    again = [sys.executable, "-m", "benchmarks.session", "--output", str(output), *(["--quick"] if quick else [])]
    for option, path in (("--data-root", data_root), ("--weights", weights)):
        again += [] if path is None else [option, str(path.resolve())]
    report = output / "session.json"
    outcomes = json.loads(report.read_text()) if report.exists() else {}
    chosen = [name for name in todo if name.startswith(tuple(begins or [""]))]
    if at_once > 1:
        chosen = [name for name in chosen if todo[name][0] != "-m"]

    def outcome(name: str) -> str:
        command = [sys.executable, *todo[name]] if todo[name][0] == "-m" else [*again, "--only", name]
        return attempt(name, command, output, left=end - time.monotonic())

    with ThreadPoolExecutor(at_once) as pool:
        under_way = {pool.submit(outcome, name): name for name in chosen}
        for ended in as_completed(under_way):
            name = under_way[ended]
            outcomes[name] = ended.result()
            write_json(report, outcomes)
            typer.echo(f"{name:<50} {outcomes[name]}")


def attempt(name: str, command: list[str], output: Path, *, left: float) -> str:
    """Run a command unless it is done already; return the outcome in words."""
    log = output / "logs" / f"{name.replace(' ', '_')}.log"
    done = log.with_suffix(".done")
    if done.exists():
        return done.read_text()
    if left < LAST_START:
        return "no time left"
    environment = os.environ | {"REPROLIB_RESULTS": str(output)}
    begun = time.monotonic()
    with log.open("a") as text:
        try:
            where = {"cwd": paths.ROOT, "env": environment, "stdout": text, "stderr": subprocess.STDOUT}
            code = subprocess.run(command, **where, timeout=left).returncode
        except subprocess.TimeoutExpired:
            return f"cut off after {left:.0f} s"
    taken = f"{time.monotonic() - begun:.0f} s"
    if code:
        return f"failed after {taken}: {log.name}"
    done.write_text(f"done in {taken}")
    return done.read_text()


def train(recipe: Recipe, dataset: str, seed: int, settings: dict, *, data_root: Path | None, quick: bool) -> None:
    """Train one run; its results are in its record."""
    from reprolib import run

    if quick:
        recipe = replace(recipe, first_stage_epochs=1, later_stage_epochs=1, merge_percent=0.4)
        dataset, settings = "synthetic", {"backbone": "resnet18", "weights": "none", "identities": 2}
    record = run(recipe, dataset, seed=seed, data_root=data_root, **settings)
    rates = f"rank-1 {record.best['rank-1']:.1%}, mAP {record.best['mAP']:.1%}"
    typer.echo(f"{record.name}: {record.provenance['seconds']} s, {rates}")


if __name__ == "__main__":
    app()
