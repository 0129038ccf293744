"""The command line: run, reproduce, check-data."""

from pathlib import Path
from typing import Annotated

import typer

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
        str, typer.Option(help="buc, dbc, oim, buc_released, dbc_released, buc_unregularized, dbc_unregularized")
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
) -> None:
    """Train one recipe on one dataset; goes on where an earlier call was cut off."""
    from reprolib import pipeline
    from reprolib.recipe import RECIPES

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    try:
        record = pipeline.run(
            RECIPES[recipe],
            dataset,
            seed=seed,
            device=device,
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
    best = record.best
    typer.echo(
        f"{record.name}: stage {record.selected} of {len(record.stages)}, "
        f"rank-1 {best['rank-1']:.1%}, mAP {best['mAP']:.1%} (step sum {best['mAP_step']:.1%})"
    )
