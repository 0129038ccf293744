"""The command line: run, reproduce, report, check-data."""

import ast
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from reprolib.recipe import RECIPES

# What every notebook is trained with in minutes, where the number of people is left to us: so many of the 45 that the
# stored records have, and of the λ of BUC Fig. 3a and DBC Fig. 4 no more than these beside 0 and the papers'.
EMBEDDED_IDENTITIES = 6
EMBEDDED_LAMBDAS = {"buc_lambdas": "[0.03]", "dbc_lambdas": "[1]"}

Engine = Annotated[Literal["here", "ray"], typer.Option(help="here: on this machine; ray: on a cluster.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster, or auto; none: one is started on this machine; see docs/cluster.md."),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"{text!r}: give HEIGHTxWIDTH, for example 256x128", param_hint="--image-size")
    return int(parts[0]), int(parts[1])


def _assigned(items: list[str] | None) -> dict[str, str]:
    """What ``--set name=value`` says, by name."""
    pairs = [item.partition("=") for item in items or []]
    if wrong := [name + equals for name, equals, _ in pairs if not (name and equals)]:
        raise ValueError(f"--set {wrong[0]!r}: give name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _value(text: str) -> int | float | bool | str:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@contextmanager
def _refusing() -> Iterator[None]:
    """What cannot be is said in one line, without a trace."""
    try:
        yield
    except ValueError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


def _require_engine(engine: str, address: str | None) -> None:
    if address and engine != "ray":
        raise typer.BadParameter("an address is for --engine ray", param_hint="--address")
    if engine == "ray" and "TORCHELASTIC_RUN_ID" in os.environ:
        raise typer.BadParameter("give --engine ray or start it by torchrun, not both", param_hint="--engine")


def _warn(message, *_, **__) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)


def _show_version(asked: bool) -> None:
    if asked:
        from reprolib.record import own_version

        typer.echo(f"reprolib {own_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say it.")] = False,
) -> None:
    """BUC and DBC, two papers on unsupervised person re-identification, reproduced."""
    warnings.showwarning = _warn  # a user is not helped by our line of code


@app.command()
def run(
    recipes: Annotated[str, typer.Option("--recipe", "--recipes", help=f"One or more of {', '.join(RECIPES)}.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="synthetic, synthetic-video, market1501, dukemtmc-reid, mars, dukemtmc-videoreid or cifar10."
        ),
    ] = "synthetic",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the datasets [$REPROLIB_DATA, else data/].")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="resnet50 (papers), resnet18 (synthetic), mobilenet_v2, resnet18-cifar.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none, catalogue (synthetic), or a local .pth or .safetensors file.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH [256x128; synthetic 64x32, cifar10 32x32].")
    ] = None,
    identities: Annotated[int | None, typer.Option(help="Train on so many identities, drawn at random.")] = None,
    samples: Annotated[int | None, typer.Option(help="Train on so many images, or tracklets, drawn at random.")] = None,
    seeds: Annotated[
        str, typer.Option("--seed", "--seeds", help="One or more: initial weights, order, crops, dropout, identities.")
    ] = "0",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another field of the recipes: name=value, such as selection=silhouette."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N [CUDA where there is one].")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 (CPU), tf32 (CUDA), bf16: the network's products.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Backbone by torch.compile: on a GPU a minute first, then faster.")
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Start over: forget the run's record and state, and the first stage that it shares."
        ),
    ] = False,
    engine: Engine = "here",
    address: Address = None,
) -> None:
    """Train recipes on one dataset, with every seed; goes on where an earlier call was cut off.

    A run that is finished already is read back. Records go to results/runs of the checkout and weights to
    results/state; the environment's REPROLIB_RESULTS names another folder than results.

    Several recipes or seeds are separated by commas: --recipes buc,dbc --seeds 0,1,2
    One model on N GPUs: torchrun --nproc-per-node=N -m reprolib run ...
    """
    from reprolib import cluster, jobs
    from reprolib.team import is_first

    _require_engine(engine, address)
    names = [name.strip().lower() for name in recipes.split(",")]
    numbers = [number.strip() for number in seeds.split(",")]
    if unknown := [name for name in names if name not in RECIPES]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    if not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter(f"{seeds!r}: give numbers such as 0 or 0,1,2", param_hint="--seed")
    settings = {
        "device": device,
        "precision": precision,
        "compiled": compiled,
        "backbone": backbone,
        "weights": weights,
        "image_size": _size(image_size),
        "identities": identities,
        "samples": samples,
        "data_root": data_root,
    }
    with _refusing():
        changes = {name: _value(text) for name, text in _assigned(set_).items()}
        chosen = [RECIPES[name].changed(**changes) for name in names]
        asked = [jobs.Job(recipe, dataset, int(number), settings) for recipe in chosen for number in numbers]
        if fresh and is_first():
            for job in asked:
                job.start_over()
        records = cluster.train(asked, address=address) if engine == "ray" else jobs.train(asked)
    for record in records if is_first() else []:
        typer.echo(_told(record))


def _told(record) -> str:
    """What a run gave, by which stage, and where the record is."""
    from reprolib import paths

    best, recipe, made = record.best, record.settings["recipe"], record.provenance
    return (
        f"{recipe['name']}, seed {record.settings['seed']}: rank-1 {best['rank-1']:.1%}, mAP {best['mAP']:.1%} "
        f"({best['mAP_step']:.1%} by step sum) at stage {record.selected} of 0-{len(record.stages) - 1}, "
        f"kept by {recipe['selection']}; made {made['date']} at commit {made['commit']}\n"
        f"  {paths.RUNS / record.name}.json"
    )


@app.command()
def reproduce(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Beginnings of names, such as 04; none: all.")] = None,
    source: Annotated[
        Literal["run", "stored"], typer.Option(help="run: train; stored: read the repository's records.")
    ] = "run",
    dataset: Annotated[str, typer.Option(help="The dataset of every exhibit on images.")] = "synthetic",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the datasets [$REPROLIB_DATA, else data/].")] = None,
    backbone: Annotated[str | None, typer.Option(help="As for run, on images.")] = None,
    weights: Annotated[str | None, typer.Option(help="As for run, on images.")] = None,
    image_size: Annotated[str | None, typer.Option(help="As for run, on images.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each recipe, with seeds 0, 1, ...")] = 1,
    identities: Annotated[
        int | None,
        typer.Option(
            help=f"Train on so many identities, 0 for all. Unsaid: all, but {EMBEDDED_IDENTITIES} of synthetic."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another parameter of the notebooks: name=value.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget all that earlier ones left in results/reproduced.")
    ] = False,
    engine: Engine = "here",
    address: Address = None,
) -> None:
    """Run the notebooks by papermill; print each claim with its verdict, here and from the repository's records.

    Those were trained on all 45 synthetic people, with three seeds, and on real data. With --engine ray the runs that
    they ask for are trained on a cluster first.
    """
    from reprolib import batch, cluster, paths, plan, results

    _require_engine(engine, address)
    with _refusing():
        values = {"source": source, "dataset": dataset, "seeds": str(list(range(seeds)))}
        few = identities is None and source == "run" and dataset == "synthetic"
        if few:
            identities, values = EMBEDDED_IDENTITIES, values | EMBEDDED_LAMBDAS
        size = _size(image_size)
        given = {
            "identities": identities or None,
            "data_root": data_root and paths.data_root(data_root),
            "backbone": backbone,
            "weights": Path(weights).resolve() if weights and Path(weights).is_file() else weights,
            "image_size": size and list(size),
        }
        for name, value in given.items():  # as YAML; a path may hold any sign
            if value is not None:
                values[name] = json.dumps(str(value)) if isinstance(value, str | Path) else str(value)
        values |= _assigned(set_)
        chosen = batch.select(notebooks or [])
        batch.require_known(values)
        if source == "run" and any("source" in batch.parameters(notebook) for notebook in chosen):
            unmade = {"weights": "none"} if weights in (None, "catalogue") else {}  # no pretraining only to see
            plan.make_plan(RECIPES["buc"], dataset, **given | unmade)  # what cannot be is said before anything is done
        if fresh:
            shutil.rmtree(batch.REPRODUCED, ignore_errors=True)
        if engine == "ray":
            wanted = batch.wanted(chosen, values)
            typer.echo(f"the notebooks ask for {len(wanted)} runs")
            cluster.train(wanted, address=address, results=batch.REPRODUCED)
        stored = results.scorecard(paths.STORED_VERDICTS).set_index(["exhibit", "claim"])["verdict"]
        begun = time.time() - 1  # the clock of files may lag behind
        failures = batch.reproduce(chosen, values)
    with _refusing():
        concluded = results.scorecard(batch.REPRODUCED / "verdicts", since=begun)
    if len(concluded):
        typer.echo(f"{'here':<15} {'stored records':<15} {'exhibit':<20} claim")
    for row in concluded.itertuples():
        typer.echo(f"{row.verdict:<15} {stored.get((row.exhibit, row.claim), ''):<15} {row.exhibit:<20} {row.claim}")
    if few and len(concluded):
        typer.echo(f"here: {identities} of 45 people, {seeds} seed(s), few λ: that all works is seen, not what holds")
    typer.echo(f"executed notebooks, records, verdicts and figures: {batch.REPRODUCED}")
    typer.echo("all of it as a page: reprolib report --source run")
    for name, error in failures.items():
        typer.secho(f"failed: {name}: {error}\n  its trace: {batch.REPRODUCED / 'executed' / name}", fg="red", err=True)
    raise typer.Exit(1 if failures else 0)


@app.command()
def report(
    source: Annotated[
        Literal["stored", "run"], typer.Option(help="stored: the repository's notebooks; run: those reproduced here.")
    ] = "stored",
) -> None:
    """Make results/report/index.html: the scorecard, every notebook, every figure; it needs no network."""
    from reprolib.report import build

    with _refusing():
        index = build(source)
    typer.echo(index)


@app.command()
def check_data(
    name: Annotated[str, typer.Argument(help="market1501, dukemtmc-reid, mars, dukemtmc-videoreid or cifar10.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the datasets [$REPROLIB_DATA, else data/].")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every image.")] = False,
) -> None:
    """Say what is there of a dataset, what is missing or corrupt, and where to get it.

    The status is 0 if all is as published. Of a part of a dataset it is 1, and a run on it is possible all the same.
    """
    from reprolib import datasets

    try:
        report = datasets.check(name, data_root, deep=deep)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(report)
    raise typer.Exit(0 if report.ok else 1)
