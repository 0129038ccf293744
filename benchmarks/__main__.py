"""``python -m benchmarks``: measure every row, print the table, and write it with its provenance."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from tqdm.auto import tqdm

from benchmarks.measure import measure, open_device
from benchmarks.rows import CPU, CUDA, QUICK, rows, without_references
from reprolib import paths
from reprolib.devices import cores
from reprolib.record import provenance
from reprolib.timings import Benchmark, exponents, table

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    device: Annotated[
        Literal["cpu", "cuda"],
        typer.Option(help="Device to measure; cuda uses larger sizes, without literal loops and libraries."),
    ] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Measure every row at a tiny size, as a test.")] = False,
    up_to: Annotated[
        int | None,
        typer.Option(min=1000, help="Leave out rows with more images than this, for example 8000. Default: all rows."),
    ] = None,
    references: Annotated[bool, typer.Option(help="Also measure literal loops and libraries.")] = True,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the result file. Default: results/bench for the full run, otherwise no file."),
    ] = None,
) -> None:
    """Time merging, ranking and the table update, beside the bare matrix product, literal loops and libraries."""
    sizes = QUICK if quick else {"cpu": CPU, "cuda": CUDA}[device]
    if device == "cuda" or not references:
        sizes = without_references(sizes)
    chosen = rows(sizes, up_to=up_to)
    benchmark = Benchmark(provenance(open_device(device)) | {"cores": cores()}, [])
    full = references and not quick and up_to is None
    folder = output or (paths.BENCH if full else None)
    with tqdm(chosen, unit="row") as progress:
        for row in progress:
            progress.set_postfix_str(f"{row.piece}, {row.images:,}")
            benchmark.rows.append(measure(row, device))
            if output:  # keeps these measurements if a later row fails
                benchmark.save(output)
    for report in (table(benchmark), exponents([benchmark]).drop(columns="column")):
        typer.echo(report.to_string(index=False) + "\n")
    if folder:
        typer.echo(benchmark.save(folder))


if __name__ == "__main__":
    app()
