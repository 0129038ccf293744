"""The command line: run, reproduce, check-data."""

import os
from pathlib import Path
from typing import Annotated

import typer

from reprolib.recipe import RECIPES

EMBEDDED_IDENTITIES = 24  # of 45: every notebook trained in minutes; the stored records have all

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"{text!r}: give HEIGHTxWIDTH, for example 256x128")
    return int(parts[0]), int(parts[1])


@app.callback()
def main() -> None:
    """BUC and DBC, two papers on unsupervised person re-identification, reproduced."""


@app.command()
def run(
    recipe: Annotated[
        str,
        typer.Option(help=", ".join(RECIPES)),
    ],
    dataset: Annotated[
        str, typer.Option(help="synthetic, synthetic-video, market1501, dukemtmc-reid, mars, ...")
    ] = "synthetic",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the datasets [$REPROLIB_DATA, else data/].")] = None,
    backbone: Annotated[str | None, typer.Option(help="resnet50 (papers), resnet18 (synthetic), mobilenet_v2.")] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a local .pth or .safetensors file.")] = None,
    image_size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH [256x128; synthetic 64x32].")] = None,
    identities: Annotated[int | None, typer.Option(help="Train on so many identities, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(help="Initial weights, order, crops, dropout, identities.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N [CUDA where there is one].")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 (CPU), tf32 (CUDA), bf16: the network's products.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
) -> None:
    """Train one recipe on one dataset; goes on where an earlier call was cut off.

    On N GPUs: torchrun --nproc-per-node=N -m reprolib run ...
    """
    from reprolib import pipeline

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    try:
        record = pipeline.run(
            RECIPES[recipe],
            dataset,
            seed=seed,
            device=device,
            precision=precision,
            backbone=backbone,
            weights=weights,
            image_size=_size(image_size),
            identities=identities,
            data_root=data_root,
            fresh=fresh,
        )
    except ValueError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    if int(os.environ.get("RANK", 0)) > 0:
        return  # torchrun's other processes; the first one speaks
    best = record.best
    typer.echo(
        f"{record.name}: stage {record.selected} of {len(record.stages)}, "
        f"rank-1 {best['rank-1']:.1%}, mAP {best['mAP']:.1%} (step sum {best['mAP_step']:.1%})"
    )


@app.command()
def reproduce(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Beginnings of names, such as 04; none: all.")] = None,
    source: Annotated[str, typer.Option(help="run: train; stored: read the repository's records.")] = "run",
    dataset: Annotated[str, typer.Option(help="The dataset of every exhibit.")] = "synthetic",
    seeds: Annotated[int, typer.Option(help="Runs of each recipe, with seeds 0, 1, ...")] = 1,
    identities: Annotated[
        int | None,
        typer.Option(help=f"Train on so many identities, 0 for all [synthetic: {EMBEDDED_IDENTITIES}; else all]."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another parameter of the notebooks: name=value.")
    ] = None,
) -> None:
    """Run the notebooks by papermill; print each claim with its verdict."""
    from reprolib import batch, paths, results

    try:
        values = {"source": source, "dataset": dataset, "seeds": str(list(range(seeds)))}
        if identities is None and source == "run" and dataset == "synthetic":
            identities = EMBEDDED_IDENTITIES
        values |= {"identities": str(identities)} if identities else {}
        for item in set_ or []:
            name, equals, value = item.partition("=")
            if not equals:
                raise ValueError(f"--set {item!r}: give name=value")
            values[name] = value
        failures = batch.reproduce(batch.select(notebooks or []), values)
    except ValueError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"executed notebooks, records, tables and figures: {batch.REPRODUCED.relative_to(paths.ROOT)}")
    for row in results.scorecard(batch.REPRODUCED / "verdicts").itertuples():
        typer.echo(f"{row.verdict:<15} {row.exhibit:<14} {row.claim}")
    for name, error in failures.items():
        typer.secho(f"failed: {name}\n{error}", fg="red", err=True)
    raise typer.Exit(1 if failures else 0)


@app.command()
def check_data(
    name: Annotated[str, typer.Argument(help="market1501, dukemtmc-reid, mars, dukemtmc-videoreid or cifar10.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of the datasets [$REPROLIB_DATA, else data/].")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Open every image.")] = False,
) -> None:
    """Say what is there of a dataset, what is missing or corrupt, and where to get it."""
    from reprolib import datasets

    try:
        report = datasets.check(name, data_root, deep=deep)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(report)
    raise typer.Exit(0 if report.ok else 1)
