"""``python -m benchmarks.programs``: merging and ranking beside the same steps as the released programs take them.

They hold all pairs at once on the host, sort all of them, and go through pairs of images (BUC's) or of clusters (DBC's)
in loops of Python. Their means of pairs of clusters, minutes of a stage, are timed on some rows; all else is run whole.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.metrics import auc, precision_recall_curve
from torch import Tensor

from benchmarks import inputs
from benchmarks.measure import in_turns
from reprolib import merge_clusters, paths, rank_gallery
from reprolib.devices import choose_device, cores
from reprolib.recipe import BUC_RELEASED, DBC_RELEASED, Recipe
from reprolib.record import provenance
from reprolib.timings import PROGRAM, Benchmark, beside_programs

FAR = 100_000.0  # a score that no pair has
DIM = 2048
MARKET = (12_936, 3368, 15_913)  # training images, queries, gallery
SAMPLED = 50  # of so many rows of DBC's means one is timed
PROGRAMS = (BUC_RELEASED, DBC_RELEASED)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    device: Annotated[
        str | None, typer.Option(help="Of our side: cuda, cuda:N, cpu [CUDA where there is one].")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the file; results/bench/programs for the full run, else none.")
    ] = None,
) -> None:
    """Time stages and ranking at Market-1501's size, and add up the merging and ranking of a whole run."""
    place = choose_device(device)
    images, queries, gallery = (60, 10, 40) if quick else MARKET
    folder = output or (None if quick else paths.BENCH / "programs")
    benchmark = Benchmark(provenance(place) | {"cores": cores()}, [])
    for recipe in PROGRAMS:
        for clusters in stages_measured(images):
            size = {"piece": recipe.name, "images": images, "clusters": clusters, "queries": 0}
            ours = stage_of_ours(recipe, images, clusters, place)
            benchmark.rows.append(size | _times(ours, stage_of_program(recipe, images, clusters)))
    size = {"piece": "ranking", "images": gallery, "clusters": 0, "queries": queries}
    benchmark.rows.append(
        size | _times(ranking_of_ours(queries, gallery, place), ranking_of_programs(queries, gallery))
    )
    if folder:
        benchmark.save(folder)
    typer.echo(beside_programs([benchmark]).to_string(index=False))


def _times(ours: list[float], program: float) -> dict:
    times = {"ours": ours, PROGRAM: [program]}
    return {
        "seconds": {name: median(taken) for name, taken in times.items()},
        "times": {name: [round(t, 7) for t in taken] for name, taken in times.items()},
    }


def stages_measured(images: int) -> tuple[int, int, int]:
    """Clusters that the first, a middle and a late stage begin with."""
    return images, images // 2, images // 10


def _inputs(images: int, clusters: int) -> tuple[Tensor, Tensor]:
    features, identities = inputs.features(images, DIM)
    return features, torch.arange(images) if clusters == images else inputs.clusters(identities, clusters)


def stage_of_ours(recipe: Recipe, images: int, clusters: int, device: torch.device) -> list[float]:
    """Seconds of a stage, five times."""
    features, labels = (v.to(device) for v in _inputs(images, clusters))
    settings = {"criterion": recipe.criterion, "merges_per_stage": recipe.merges_per_stage(images)}
    return in_turns({"": partial(merge_clusters, features, labels, **settings)}, 5, device.type)[""]


def stage_of_program(recipe: Recipe, images: int, clusters: int) -> float:
    """Seconds of the same stage as the recipe's program takes it, on the host."""
    features, labels = (v.numpy() for v in _inputs(images, clusters))
    merges, sampled = recipe.merges_per_stage(images), Sampled(SAMPLED)
    begun = time.perf_counter()
    if recipe is BUC_RELEASED:
        merge_as_buc(features, labels.tolist(), weight=recipe.criterion.regularizer_weight, merges=merges)
    else:
        merge_as_dbc(features, labels, merges=merges, means=sampled)
    return time.perf_counter() - begun + sampled.left_out


def ranking_of_ours(queries: int, gallery: int, device: torch.device) -> list[float]:
    """Seconds of ranking all queries, five times."""
    rows, _ = inputs.features(queries + gallery, DIM, device=str(device))
    call = partial(rank_gallery, rows[:queries], rows[queries:], **inputs.ids(queries, gallery))
    return in_turns({"": call}, 5, device.type)[""]


def ranking_of_programs(queries: int, gallery: int) -> float:
    """Seconds of the same as both programs take it, on the host."""
    rows, _ = inputs.features(queries + gallery, DIM)
    ids = {name: v.numpy() for name, v in inputs.ids(queries, gallery).items()}
    begun = time.perf_counter()
    rank_as_programs(rows[:queries].numpy(), rows[queries:].numpy(), **ids)
    return time.perf_counter() - begun


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All of them, (N, K) float32, by the expanded square."""
    return (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * (x @ y.T)


def merge_as_buc(features: np.ndarray, labels: list[int], *, weight: float, merges: int) -> list[int]:
    """New labels: pairs of images struck out one by one where they share a cluster, all N² sorted, labels as lists."""
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


def mean_by_mean(distances: np.ndarray, ends: np.ndarray, *, every: int = 1) -> np.ndarray:
    """Mean of each block of clusters a <= b, (C, C), one after the other; of every so-manieth a."""
    clusters = len(ends) - 1
    means = np.zeros((clusters, clusters))
    for a in range(0, clusters, every):
        for b in range(a, clusters):
            means[a, b] = np.average(distances[ends[a] : ends[a + 1], ends[b] : ends[b + 1]])
    return means


class Sampled:
    """The same means at once, after some rows of the loop: they tell how much more time all of it would take."""

    def __init__(self, every: int):
        """Time one row of so many."""
        self.every, self.left_out = every, 0.0

    def __call__(self, distances: np.ndarray, ends: np.ndarray) -> np.ndarray:
        begun = time.perf_counter()
        mean_by_mean(distances, ends, every=self.every)
        loop = time.perf_counter() - begun
        sums = np.add.reduceat(np.add.reduceat(distances, ends[:-1], axis=0), ends[:-1], axis=1)
        means = np.triu(sums / np.outer(np.diff(ends), np.diff(ends)))
        pairs = np.arange(len(means), 0, -1)  # of each row
        self.left_out = loop * pairs.sum() / pairs[:: self.every].sum() - (time.perf_counter() - begun)
        return means


def merge_as_dbc(
    features: np.ndarray, labels: np.ndarray, *, merges: int, means: Callable[..., np.ndarray] = mean_by_mean
) -> np.ndarray:
    """New labels: the means of all pairs of clusters, all C² sorted, merged down the list."""
    order, sizes = np.argsort(labels, kind="stable"), np.bincount(labels)
    members = dict(enumerate(np.split(order, np.cumsum(sizes)[:-1])))
    linkages = means(squared_distances(features[order], features[order]), np.cumsum([0, *sizes]))
    linkages += np.tril(np.full_like(linkages, FAR))
    one, other = np.unravel_index(np.argsort(linkages, axis=None), linkages.shape)
    wanted = len(sizes) - merges
    for a, b in zip(one, other, strict=True):
        if a in members and b in members:  # a < b: b goes
            members[a] = np.concatenate([members[a], members.pop(b)])
            if len(members) == wanted:
                break
    found = np.empty_like(labels)
    for new, old in enumerate(sorted(members)):
        found[members[old]] = new
    return found


def rank_as_programs(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_camids: np.ndarray,
) -> tuple[float, float]:
    """Rank-1 and mAP by trapezoid: all distances sorted, for the one and for the other, then query by query."""
    distances = squared_distances(query, gallery)
    precisions, firsts = [], []
    order = np.argsort(distances, axis=1)
    for q, row in enumerate(order):
        keep = (gallery_pids[row] != query_pids[q]) | (gallery_camids[row] != query_camids[q])
        matches = gallery_pids[row][keep] == query_pids[q]
        if matches.any():
            precision, recall, _ = precision_recall_curve(matches, -distances[q][row][keep])
            precisions.append(auc(recall, precision))
    order = np.argsort(distances, axis=1)
    for q, row in enumerate(order):
        keep = (gallery_pids[row] != query_pids[q]) | (gallery_camids[row] != query_camids[q])
        matches = gallery_pids[row][keep] == query_pids[q]
        if matches.any():
            firsts.append(matches[0])
    return float(np.mean(firsts)), float(np.mean(precisions))


if __name__ == "__main__":
    app()
