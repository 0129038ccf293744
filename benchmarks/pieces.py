"""The calls of a row: ours, the bare matrix product, and alternatives that do the same work."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.cluster import hierarchy
from sklearn.metrics import auc, precision_recall_curve
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_average_precision

from benchmarks import inputs
from benchmarks.rows import LITERAL, SCIPY, SKLEARN, TORCHMETRICS, Row
from reprolib import LookupTable, merge_clusters, rank_gallery
from reprolib.devices import multiplying_in
from reprolib.recipe import BUC_UNREGULARIZED, DBC_UNREGULARIZED, RECIPES
from reprolib.timings import OURS, PRODUCT

FAST_PRODUCT = "product in TF32"
TREES = {"minimum tree": (BUC_UNREGULARIZED, "single"), "average tree": (DBC_UNREGULARIZED, "average")}
PRODUCT_BYTES = 2**30  # up to this size the bare product is computed at once, above it in blocks of rows

Call = Callable[[], object]


def prepare(row: Row, device: str) -> dict[str, Call]:
    """Return the calls that a row compares, by name, ours first; only those listed in its ``against``."""
    kind = {"ranking": _ranking, "table update": _table_update}.get(row.piece, _stage)
    calls = kind(row, device)
    return {name: call for name, call in calls.items() if name in (OURS, PRODUCT, FAST_PRODUCT, *row.against)}


def is_exact(row: Row, device: str) -> bool:
    """Whether the result of a stage equals the one with products in float64."""
    features, labels, settings = _stage_inputs(row, device)
    ours = merge_clusters(features, labels, **settings)
    return torch.equal(ours, merge_clusters(features.double(), labels, **settings))


def _stage_inputs(row: Row, device: str) -> tuple[Tensor, Tensor, dict]:
    features, identities = inputs.features(row.images, row.dim, device=device)
    singletons = row.clusters == row.images
    labels = torch.arange(row.images, device=device) if singletons else inputs.clusters(identities, row.clusters)
    recipe = TREES[row.piece][0] if row.piece in TREES else RECIPES[row.piece]
    merges = row.images - 1 if row.piece in TREES else recipe.merges_per_stage(row.images)
    return features, labels, {"criterion": recipe.criterion, "merges_per_stage": merges}


def _stage(row: Row, device: str) -> dict[str, Call]:
    features, labels, settings = _stage_inputs(row, device)
    calls = {OURS: partial(merge_clusters, features, labels, **settings), **_products(features, features)}
    if LITERAL in row.against:
        from tests import reference  # not at the top: without literal loops, "tests" may be another package

        calls[LITERAL] = partial(reference.merge_clusters, features.tolist(), labels.tolist(), **settings)
    if SCIPY in row.against:
        calls[SCIPY] = partial(hierarchy.linkage, features.numpy(), TREES[row.piece][1])
    return calls


def _products(a: Tensor, b: Tensor) -> dict[str, Call]:
    calls = {PRODUCT: partial(_product, a, b)}
    if a.is_cuda:
        calls[FAST_PRODUCT] = partial(_fast_product, a, b)
    return calls


def _product(a: Tensor, b: Tensor) -> None:
    """Compute all products of the rows of ``a`` (N, d) with those of ``b`` (K, d)."""
    for rows in a.split(max(1, PRODUCT_BYTES // (4 * len(b)))):
        torch.mm(rows, b.T)


def _fast_product(a: Tensor, b: Tensor) -> None:
    """Compute the same products with CUDA's tensor cores."""
    with multiplying_in("tf32", a.device):
        _product(a, b)


def _ranking(row: Row, device: str) -> dict[str, Call]:
    rows, _ = inputs.features(row.queries + row.images, row.dim, device=device)
    query, gallery = rows[: row.queries], rows[row.queries :]
    ids = inputs.ids(row.queries, row.images, junk=not row.against)
    calls = {OURS: partial(rank_gallery, query, gallery, **ids), **_products(query, gallery)}
    if row.against:
        from tests import reference_evaluation

        matches = ids["query_pids"][:, None] == ids["gallery_pids"]
        valid = matches.any(1)
        calls[LITERAL] = partial(_rank_literally, reference_evaluation.ranking_reference, query, gallery, ids)
        calls[SKLEARN] = partial(_rank_by_sklearn, query[valid], gallery, matches[valid].numpy())
        calls[TORCHMETRICS] = partial(_rank_by_torchmetrics, query[valid], gallery, matches[valid])
    return calls


def _rank_literally(rank: Callable, query: Tensor, gallery: Tensor, ids: dict[str, Tensor]) -> object:
    distances = torch.cdist(query, gallery).tolist()
    return rank(distances, *(v.tolist() for v in ids.values()), top_k=50)


def _rank_by_sklearn(query: Tensor, gallery: Tensor, matches: np.ndarray) -> float:
    """Compute mean AP by trapezoid rule, as in both released programs."""
    scores = -torch.cdist(query, gallery).numpy()
    curves = [precision_recall_curve(match, score) for match, score in zip(matches, scores, strict=True)]
    return float(np.mean([auc(recall, precision) for precision, recall, _ in curves]))


def _rank_by_torchmetrics(query: Tensor, gallery: Tensor, matches: Tensor) -> float:
    """Compute mean AP by step sum."""
    scores = 2 - torch.cdist(query, gallery)  # positive; otherwise torchmetrics counts an image as not retrieved
    found = [retrieval_average_precision(score, match) for score, match in zip(scores, matches, strict=True)]
    return float(torch.stack(found).mean())


def _table_update(row: Row, device: str) -> dict[str, Call]:
    repeats = {"distinct": 1, "pairs": 2, "same": row.images}[row.labels]
    different = torch.randperm(row.clusters, generator=torch.Generator().manual_seed(0))[: row.images // repeats]
    labels = different.repeat(repeats)
    embedding, _ = inputs.features(row.images, row.dim, device=device)
    table, weight = (LookupTable(row.clusters, row.dim, device=device) for _ in range(2))
    return {
        OURS: partial(table.update, embedding, labels),
        LITERAL: partial(_update_literally, weight.weight, embedding, labels),
    }


def _update_literally(weight: Tensor, embedding: Tensor, labels: Tensor) -> None:
    """Do ``V_y <- (V_y + v) / 2`` and scale to unit length, one sample after the other."""
    for v, y in zip(embedding, labels.tolist(), strict=True):
        weight[y] = (weight[y] + v) / 2
        weight[y] /= weight[y].norm()
