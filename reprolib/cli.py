"""The command line: run, reproduce, report, check-data."""

import ast
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from reprolib.recipe import RECIPES

# Defaults with which all notebooks train in minutes: this number of the 45 people in the stored records, and for BUC
# Fig. 3a and DBC Fig. 4 only these λ besides 0 and those of the papers.
SYNTHETIC_IDENTITIES = 6
SYNTHETIC_LAMBDAS = {"buc_lambdas": "[0.03]", "dbc_lambdas": "[1]"}

Engine = Annotated[
    Literal["here", "ray"], typer.Option(help="Where to train: here (on this machine) or ray (on a Ray cluster).")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster for --engine ray, for example head:6379, or auto. Default: start a cluster on "
        "this machine. See docs/cluster.md."
    ),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH, for example 256x128", param_hint="--image-size")
    return int(parts[0]), int(parts[1])


def _assigned(items: list[str] | None) -> dict[str, str]:
    """Parse ``--set name=value`` options to a dictionary."""
    pairs = [item.partition("=") for item in items or []]
    if wrong := [name + equals for name, equals, _ in pairs if not (name and equals)]:
        raise ValueError(f"--set {wrong[0]!r} is not of the form name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _value(text: str) -> int | float | bool | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@contextmanager
def _refusing() -> Iterator[None]:
    """Report invalid input, or Ctrl-C, in one line, without a traceback."""
    try:
        yield
    except ValueError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; to go on, give the same command again without --fresh", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None


def _require_engine(engine: str, address: str | None) -> None:
    if address and engine != "ray":
        raise typer.BadParameter("an address needs --engine ray", param_hint="--address")
    if engine == "ray" and "TORCHELASTIC_RUN_ID" in os.environ:
        raise typer.BadParameter("use either --engine ray or torchrun, not both", param_hint="--engine")


def _warn(message, *_, **__) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)


def _show_version(asked: bool) -> None:
    if asked:
        from reprolib.record import own_version

        typer.echo(f"reprolib {own_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Reproduce BUC and DBC, two papers on unsupervised person re-identification."""
    warnings.showwarning = _warn  # without our line of code, which does not help a user


@app.command()
def run(
    recipes: Annotated[
        str,
        typer.Option(
            "--recipe",
            "--recipes",
            help=f"Method to train, or several separated by commas, for example buc,dbc. One of {', '.join(RECIPES)}.",
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="Dataset: synthetic, synthetic-video, market1501, dukemtmc-reid, mars, dukemtmc-videoreid or cifar10."
        ),
    ] = "synthetic",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets. Default: $REPROLIB_DATA, else data/.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Backbone: resnet50, resnet18, mobilenet_v2 or resnet18-cifar. Default: resnet50 as in the papers; "
            "resnet18 for the synthetic datasets, resnet18-cifar for cifar10."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Initial weights of the backbone: imagenet, none, catalogue (pretraining for the synthetic datasets), "
            "or a .pth or .safetensors file with the names of torchvision's state_dict. Default: imagenet; synthetic: "
            "catalogue; cifar10: none."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Input size as HEIGHTxWIDTH, for example 128x64. Default: 256x128; synthetic: 64x32; cifar10: 32x32."
        ),
    ] = None,
    identities: Annotated[
        int | None,
        typer.Option(help="Train on only this many identities, drawn at random, for example 100. Default, or 0: all."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Train on only this many images, or tracklets, drawn at random. Default: all."),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(
            "--seed",
            "--seeds",
            help="Random seed, or several separated by commas, for example 0,1,2. It determines initial weights, "
            "order, crops, dropout and the identities drawn at random.",
        ),
    ] = "0",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change another field of the recipes, as name=value, for example selection=silhouette; repeat for "
            "several fields. An unknown name lists them all.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device: cpu, cuda or cuda:N, for example cuda:1. Default: CUDA if available.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the network's products: float32, tf32 (only on CUDA) or bf16. Default: tf32 on CUDA, "
            "else float32."
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled",
            help="Train the backbone with torch.compile: on a GPU a minute of compiling, then faster training.",
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Start over: delete the run's record, labels, t-SNE map and saved state, including the first stage "
            "that it shares with other runs.",
        ),
    ] = False,
    engine: Engine = "here",
    address: Address = None,
) -> None:
    """Train one or more recipes on a dataset, each with every seed; interrupted runs are resumed.

    The record of a finished run is read back. Records are written to results/runs in the checkout and weights to
    results/state; set the environment variable REPROLIB_RESULTS to use another folder instead of results.

    Several recipes and seeds: reprolib run --recipes buc,dbc --seeds 0,1,2
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
        raise typer.BadParameter(f"{seeds!r}: use numbers such as 0 or 0,1,2", param_hint="--seed")
    settings = {
        "device": device,
        "precision": precision,
        "compiled": compiled,
        "backbone": backbone,
        "weights": weights,
        "image_size": _size(image_size),
        "identities": identities or None,
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
    """Describe the result of a run, its kept stage, and the file of its record."""
    from reprolib import paths

    best, recipe, made = record.best, record.settings["recipe"], record.provenance
    read = "read back, " if record.root else ""  # not trained now
    return (
        f"{recipe['name']}, seed {record.settings['seed']}: rank-1 {best['rank-1']:.1%}, mAP {best['mAP']:.1%} "
        f"({best['mAP_step']:.1%} by step sum) at stage {record.selected} of 0-{len(record.stages) - 1}, "
        f"kept by {recipe['selection']}; {read}made {made['date']} at commit {made['commit']}\n"
        f"  {paths.RUNS / record.name}.json"
    )


@app.command()
def reproduce(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(help="Notebooks to run, by the beginnings of their names, for example 04 11. Default: all."),
    ] = None,
    source: Annotated[
        Literal["run", "stored"],
        typer.Option(help="run: train the runs; stored: read the records in the repository."),
    ] = "run",
    dataset: Annotated[
        str, typer.Option(help="Dataset for all exhibits on images, for example market1501.")
    ] = "synthetic",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets. Default: $REPROLIB_DATA, else data/.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone for the exhibits on images, as in reprolib run.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Initial weights for the exhibits on images, as in reprolib run.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Input size for the exhibits on images, as in reprolib run.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs per recipe; the seeds are 0, 1, ...")] = 1,
    identities: Annotated[
        int | None,
        typer.Option(
            help="Train on only this many identities; 0 means all. Default: all, but only "
            f"{SYNTHETIC_IDENTITIES} for the synthetic dataset."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set another parameter of the notebooks, as name=value, for example buc_lambdas='[0.03]'; repeat for "
            "several.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete everything that earlier calls left in results/reproduced first.")
    ] = False,
    engine: Engine = "here",
    address: Address = None,
) -> None:
    """Run the notebooks with papermill and print each claim with its verdict, from these runs and from stored records.

    Executed notebooks, records and figures are written to results/reproduced in the checkout.
    The stored records were trained on all 45 synthetic people, mostly with three seeds, and on real data.
    With --engine ray the runs that the notebooks need are first trained on a cluster.
    """
    from reprolib import batch, cluster, paths, plan, results

    _require_engine(engine, address)
    with _refusing():
        few = identities is None and source == "run" and dataset == "synthetic"
        if few:
            identities = SYNTHETIC_IDENTITIES
        size = _size(image_size)
        settings = {
            "identities": identities or None,
            "data_root": data_root and str(paths.data_root(data_root)),
            "backbone": backbone,
            "weights": str(Path(weights).resolve()) if weights and Path(weights).is_file() else weights,
            "image_size": size and list(size),
        }
        values = {"source": source, "dataset": dataset, "seeds": json.dumps([*range(seeds)])}
        values |= {name: json.dumps(value) for name, value in settings.items() if value is not None}  # JSON is YAML
        usual = {"source": "run", "dataset": "synthetic", "seeds": "[0]"}
        usual |= {"identities": values["identities"]} if few else {}
        assigned = _assigned(set_)
        if own := assigned.keys() & {*values, *settings}:
            name = min(own)
            raise ValueError(f"--set {name}=... has an option of its own: use --{name.replace('_', '-')}")
        chosen = batch.select(notebooks or [])
        asked = [name for name, value in values.items() if value != usual.get(name)]
        batch.require_known([*asked, *assigned], chosen)  # a parameter of other notebooks would have no effect
        values |= (SYNTHETIC_LAMBDAS if few else {}) | assigned
        if source == "run" and any("source" in batch.parameters(notebook) for notebook in chosen):
            unmade = {"weights": "none"} if weights in (None, "catalogue") else {}  # no pretraining only for a check
            plan.make_plan(RECIPES["buc"], dataset, **settings | unmade)  # reports invalid settings before any work
        if fresh:
            shutil.rmtree(batch.REPRODUCED, ignore_errors=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the notebooks too
        if engine == "ray":
            wanted = batch.wanted(chosen, values)
            typer.echo(f"the notebooks need {len(wanted)} runs")
            cluster.train(wanted, address=address, results=batch.REPRODUCED)
        stored = results.scorecard(paths.STORED_VERDICTS).set_index(["exhibit", "claim"])["verdict"]
        begun = time.time() - 1  # the clock of files may lag behind
        failures = batch.reproduce(chosen, values)
        concluded = results.scorecard(batch.REPRODUCED / "verdicts", since=begun)
    if few and any("identities" in batch.parameters(notebook) for notebook in chosen):
        typer.echo(
            f"\nA quick check, trained on {identities} of the 45 synthetic people ({seeds} seed(s), few λ). "
            "It checks that everything\nworks, not which claims hold: the column 'stored records' has the "
            "repository's own verdicts.\n"
        )
    _print_verdicts(concluded, stored)
    typer.echo(f"executed notebooks, records, verdicts and figures: {batch.REPRODUCED}")
    typer.echo("to make an HTML report of it: reprolib report --source run")
    for name, error in failures.items():
        typer.secho(f"failed: {name}: {error}\n  traceback: {batch.REPRODUCED / 'executed' / name}", fg="red", err=True)
    raise typer.Exit(1 if failures else 0)


def _print_verdicts(concluded, stored) -> None:
    """Print a line per claim: the verdict of these runs, that of the stored records, the exhibit, the claim."""
    if len(concluded):
        typer.echo(f"{'here':<15} {'stored records':<15} {'exhibit':<24} claim")
    for row in concluded.itertuples():
        typer.echo(f"{row.verdict:<15} {stored.get((row.exhibit, row.claim), ''):<15} {row.exhibit:<24} {row.claim}")
    typer.echo()


@app.command()
def report(
    source: Annotated[
        Literal["stored", "run"],
        typer.Option(
            help="stored: the notebooks in the repository; run: those executed on this machine by reprolib reproduce."
        ),
    ] = "stored",
    output: Annotated[Path | None, typer.Option(help="Folder for the report. Default: results/report.")] = None,
) -> None:
    """Make an HTML report that needs no network, with the scorecard, every notebook and every figure."""
    from reprolib import paths
    from reprolib.report import build

    with _refusing():
        index = build(source, target=output.resolve() if output else paths.REPORT)
    typer.echo(index)


@app.command()
def check_data(
    name: Annotated[
        str,
        typer.Argument(help="Dataset to check: market1501, dukemtmc-reid, mars, dukemtmc-videoreid or cifar10."),
    ],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets. Default: $REPROLIB_DATA, else data/.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image, to find damaged files.")] = False,
) -> None:
    """Check a dataset: report what is there, what is missing or damaged, and where to get it.

    The exit status is 0 if everything is as published. For part of a dataset it is 1, but runs on it are still
    possible.
    """
    from reprolib import datasets

    try:
        report = datasets.check(name, data_root, deep=deep)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(report)
    raise typer.Exit(0 if report.ok else 1)
