"""``python -m benchmarks.programs``: merging and ranking, beside the same steps done as in the released programs.

The programs hold all pairs at once on the host, sort all of them, and go through pairs of images (BUC) or of clusters
(DBC) in Python loops. DBC's loop takes minutes, so only one in fifty of its rows is timed, three times over.
"""

import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.metrics import auc, precision_recall_curve

from benchmarks import inputs
from benchmarks.measure import in_turns, open_device, summary
from reprolib import merge_clusters, paths, rank_gallery
from reprolib.devices import cores
from reprolib.recipe import BUC_RELEASED, DBC_RELEASED, Recipe
from reprolib.record import cpu_name, provenance
from reprolib.timings import OURS, PROGRAM, RANKING, Benchmark, beside_programs

FAR = 100_000.0  # larger than the score of any pair
DIM = 2048
MARKET = (12_936, 3368, 15_913)  # training images, queries, gallery
EVERY = 50  # one in this many rows of DBC's means is timed
PROGRAMS = (BUC_RELEASED, DBC_RELEASED)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    device: Annotated[
        str | None, typer.Option(help="Device for our code: cuda, cuda:N or cpu. Default: CUDA if available.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use tiny sizes, as a test.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the result file. Default: results/bench/programs for the full run, otherwise no file."
        ),
    ] = None,
) -> None:
    """Time stages and ranking at Market-1501's size, and add up the merging and ranking of a whole run."""
    place = open_device(device)
    folder = output or (None if quick else paths.BENCH / "programs")
    sizes = (60, 10, 40) if quick else MARKET
    benchmark = Benchmark(provenance(place) | {"host": cpu_name(), "cores": cores()}, list(measure(*sizes, place)))
    if folder:
        benchmark.save(folder)
    typer.echo(beside_programs([benchmark]).to_string(index=False))


def measure(
    images: int, queries: int, gallery: int, device: torch.device, *, done: Collection[tuple] = ()
) -> Iterator[dict]:
    """Yield rows, ours beside the programs': stages with all, half and a tenth as many clusters as images; a ranking.

    Rows in ``done`` are skipped: (piece, clusters, None), with None for the clusters of the ranking.
    """
    for recipe in PROGRAMS:
        for clusters in (images, images // 2, images // 10):
            if (recipe.name, clusters, None) in done:
                continue
            size = {"piece": recipe.name, "images": images, "clusters": clusters}
            yield size | _stage(recipe, images, clusters, device)
    if (RANKING, None, None) not in done:
        yield {"piece": RANKING, "images": gallery, "queries": queries} | _ranking(queries, gallery, device)


def _stage(recipe: Recipe, images: int, clusters: int, device: torch.device) -> dict:
    features, identities = inputs.features(images, DIM)
    labels = torch.arange(images) if clusters == images else inputs.clusters(identities, clusters)
    merges = recipe.merges_per_stage(images)
    settings = {"criterion": recipe.criterion, "merges_per_stage": merges}
    ours = partial(merge_clusters, features.to(device), labels.to(device), **settings)
    if recipe.criterion.linkage == "minimum":
        program = _seconds_as_buc(features.numpy(), labels.tolist(), recipe.criterion.regularizer_weight, merges)
    else:
        program = _seconds_as_dbc(features.numpy(), labels.numpy(), merges)
    return _times(ours, program, device)


def _seconds_as_buc(features: np.ndarray, labels: list[int], weight: float, merges: int) -> list[float]:
    begun = time.perf_counter()
    merge_as_buc(features, labels, weight=weight, merges=merges)
    return [time.perf_counter() - begun]


def _seconds_as_dbc(features: np.ndarray, labels: np.ndarray, merges: int) -> list[float]:
    """Return three measured times, each extrapolated from different rows of the means."""
    begun = time.perf_counter()
    distances, ends, members = by_cluster(features, labels)
    before = time.perf_counter() - begun
    clusters, loops = len(members), []
    for first in range(0, min(clusters, EVERY), 17):
        rows = range(first, clusters, EVERY)
        begun = time.perf_counter()
        one_by_one(distances, ends, rows)
        loops.append((time.perf_counter() - begun) / share(clusters, rows))
    means = at_once(distances, ends)
    begun = time.perf_counter()
    merge_down(means, members, merges)
    after = time.perf_counter() - begun
    return [before + loop + after for loop in loops]


def _ranking(queries: int, gallery: int, device: torch.device) -> dict:
    rows, _ = inputs.features(queries + gallery, DIM)
    ids, here = inputs.ids(queries, gallery), rows.to(device)
    ours = partial(rank_gallery, here[:queries], here[queries:], **ids)
    numbers = {name: v.numpy() for name, v in ids.items()}
    begun = time.perf_counter()
    rank_as_programs(rows[:queries].numpy(), rows[queries:].numpy(), numbers)
    return _times(ours, [time.perf_counter() - begun], device)


def _times(ours: Callable, program: list[float], device: torch.device) -> dict:
    """Return medians and all times; our call is timed five times."""
    return summary(in_turns({OURS: ours}, 5, device.type) | {PROGRAM: program})


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute all squared distances, (N, K) float32, from the expanded square."""
    return (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * (x @ y.T)


def merge_as_buc(features: np.ndarray, labels: list[int], *, weight: float, merges: int) -> list[int]:
    """Merge as BUC's program: mask image pairs within a cluster one by one, sort all N² pairs, keep labels as lists."""
    images = len(labels)
    sizes = np.bincount(labels)[labels].astype(np.float32)
    scores = squared_distances(features, features) + weight * (sizes[:, None] + sizes)
    scores += np.tril(np.full_like(scores, FAR))
    for i in range(images):
        for j in range(i + 1, images):
            if labels[i] == labels[j]:
                scores[i, j] = FAR
    one, other = np.unravel_index(np.argsort(scores, axis=None), scores.shape)
    wanted = len(np.unique(labels)) - merges
    for i, j in zip(one, other, strict=True):
        keep, gone = sorted((labels[i], labels[j]))
        labels = [keep if label == gone else label for label in labels]
        if len(np.unique(labels)) == wanted:
            break
    for new, old in enumerate(np.unique(labels).tolist()):
        labels = [new if label == old else label for label in labels]
    return labels


def merge_as_dbc(features: np.ndarray, labels: np.ndarray, *, merges: int) -> np.ndarray:
    """Merge as DBC's program: compute the means of all pairs of clusters, sort all C², merge down the list.

    The program also adds the regularizer to a copy of the means that it does not rank; that is left out.
    """
    distances, ends, members = by_cluster(features, labels)
    return merge_down(one_by_one(distances, ends, range(len(members))), members, merges)


def by_cluster(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return distances of the images sorted by cluster, where the clusters begin and end, and their images."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum([0, *np.bincount(labels)])
    return squared_distances(features[order], features[order]), ends, np.split(order, ends[1:-1])


def one_by_one(distances: np.ndarray, ends: np.ndarray, rows: range) -> np.ndarray:
    """Compute means of blocks of distances, of clusters a in ``rows`` with b >= a, one by one: (C, C), 0 elsewhere."""
    clusters = len(ends) - 1
    means = np.zeros((clusters, clusters))
    for a in rows:
        for b in range(a, clusters):
            means[a, b] = np.average(distances[ends[a] : ends[a + 1], ends[b] : ends[b + 1]])
    return means


def at_once(distances: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Compute the result of ``one_by_one`` for all rows, without its loop."""
    sums = np.add.reduceat(np.add.reduceat(distances, ends[:-1], axis=0), ends[:-1], axis=1)
    return np.triu(sums / np.outer(np.diff(ends), np.diff(ends)))


def share(clusters: int, rows: range) -> float:
    """Return the share of all pairs a <= b that is in ``rows``."""
    return sum(clusters - a for a in rows) / (clusters * (clusters + 1) / 2)


def merge_down(means: np.ndarray, members: list[np.ndarray], merges: int) -> np.ndarray:
    """Merge pairs in ascending order of their means; skip a pair if either cluster was already absorbed."""
    means += np.tril(np.full_like(means, FAR))
    one, other = np.unravel_index(np.argsort(means, axis=None), means.shape)
    left = dict(enumerate(members))
    for a, b in zip(one, other, strict=True):
        if a in left and b in left:
            left[a] = np.concatenate([left[a], left.pop(b)])
            if len(left) == len(members) - merges:
                break
    labels = np.empty(sum(map(len, members)), dtype=np.int64)
    for new, old in enumerate(sorted(left)):
        labels[left[old]] = new
    return labels


def rank_as_programs(query: np.ndarray, gallery: np.ndarray, ids: dict[str, np.ndarray]) -> tuple[float, float]:
    """Compute rank-1 and mAP (trapezoid): sort all distances, once for each of the two, then go query by query."""
    distances = squared_distances(query, gallery)
    firsts = [matches[0] for _, _, matches in _ranked(np.argsort(distances, axis=1), ids)]
    curves = (
        precision_recall_curve(matches, -distances[q][found])
        for q, found, matches in _ranked(np.argsort(distances, axis=1), ids)
    )
    return float(np.mean(firsts)), float(np.mean([auc(recall, precision) for precision, recall, _ in curves]))


def _ranked(order: np.ndarray, ids: dict[str, np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield for each query with a match: its index, the ranked gallery without its junk, and a mask of the matches."""
    for q, row in enumerate(order):
        same = ids["gallery_pids"][row] == ids["query_pids"][q]
        keep = ~(same & (ids["gallery_camids"][row] == ids["query_camids"][q]))
        if same[keep].any():
            yield q, row[keep], same[keep]


if __name__ == "__main__":
    app()
