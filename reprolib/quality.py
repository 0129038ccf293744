"""How well pseudo-labels agree with the true identities, and how well clusters are separated, which needs none.

For diagnosis, and for choosing a stage: nothing here may reach training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = {"cpu": 2**21, "cuda": 2**25}  # distances that are held at a time
ROUNDING = 1e-13  # of float64, in a squared distance over the squared lengths
MANY = 20_000  # images of which a run computes validity only if a stage is chosen by it, for it costs N²


@dataclass(frozen=True)
class ClusterQuality:
    """Agreement of clusters with identities, in fractions; every field survives JSON as it is.

    Those that take identities are of the images whose pid is 0 or more, and None where there is none: -1 is unknown.
    """

    num_clusters: int
    num_singletons: int
    largest_cluster: int  # images in it
    size_histogram: list[list[int]]  # [size, number of clusters of that size], by ascending size
    purity: float | None  # share of the images whose pid is the most frequent one of their cluster
    adjusted_rand_index: float | None  # 1 where the partitions are equal, about 0 where they agree by chance
    pair_precision: float | None  # share of the pairs in one cluster that are of one pid; 1 where there is no such pair
    pair_recall: float | None  # share of the pairs of one pid that are in one cluster; 1 where there is no such pair


def cluster_quality(pseudo_labels: Tensor | np.ndarray, pids: Tensor | np.ndarray) -> ClusterQuality:
    """Compare ``pseudo_labels`` (N,) with ``pids`` (N,), integers in any numbering, both on any device.

    ValueError for shapes that differ, other than integers, and no image.
    """
    labels, pids = _integers(pseudo_labels), _integers(pids)
    if labels.shape != pids.shape or labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"pseudo_labels {labels.shape} and pids {pids.shape} must both be (N,) with N at least 1")
    sizes = np.unique(labels, return_counts=True)[1]
    return ClusterQuality(
        num_clusters=len(sizes),
        num_singletons=int((sizes == 1).sum()),
        largest_cluster=int(sizes.max()),
        size_histogram=np.stack(np.unique(sizes, return_counts=True), axis=1).tolist(),
        **_agreement(labels[pids >= 0], pids[pids >= 0]),
    )


def _agreement(labels: np.ndarray, pids: np.ndarray) -> dict[str, float | None]:
    """The fields of :class:`ClusterQuality` that take identities, of the images (n,) whose identity is known."""
    if len(labels) == 0:
        return dict.fromkeys(("purity", "adjusted_rand_index", "pair_precision", "pair_recall"))
    clusters, identities = (np.unique(ids, return_inverse=True)[1] for ids in (labels, pids))
    (cluster, _), shared = np.unique([clusters, identities], axis=1, return_counts=True)
    sizes = np.bincount(clusters)
    most_frequent = np.zeros(len(sizes), np.int64)
    np.maximum.at(most_frequent, cluster, shared)
    in_both, in_cluster, of_pid = _pairs(shared), _pairs(sizes), _pairs(np.bincount(identities))
    return {
        "purity": float(most_frequent.sum() / len(labels)),
        "adjusted_rand_index": _adjusted_rand_index(in_both, in_cluster, of_pid, total=_pairs(len(labels))),
        "pair_precision": in_both / in_cluster if in_cluster else 1.0,
        "pair_recall": in_both / of_pid if of_pid else 1.0,
    }


def cluster_validity(features: Tensor, pseudo_labels: Tensor) -> dict[str, float]:
    """How compact and well separated clusters are, without any identity: what a user with no labels can choose by.

    ``features`` (N, d), ``pseudo_labels`` (N,), on any device. The mean silhouette (Rousseeuw 1987; -1 to 1, higher is
    better), Calinski and Harabasz's ratio of dispersions (1974; higher is better) and Davies and Bouldin's index
    (1979; lower is better) on Euclidean distances, as scikit-learn defines them, in float64. Empty where they are
    undefined: one cluster, or as many as images. ValueError for labels that are no integers, or not one a point.
    """
    points = features.detach().double()
    labels = torch.from_numpy(_integers(pseudo_labels)).to(points.device)
    if labels.shape != points.shape[:1]:
        raise ValueError(f"pseudo_labels {tuple(labels.shape)} must be (N,) for features {tuple(points.shape)}")
    labels = torch.unique(labels, return_inverse=True)[1]
    sizes = torch.bincount(labels)
    if not 1 < len(sizes) < len(labels):
        return {}
    centers = points.new_zeros(len(sizes), points.shape[1]).index_add_(0, labels, points) / sizes[:, None]
    to_center = torch.linalg.vector_norm(points - centers[labels], dim=1)
    spreads = to_center.new_zeros(len(sizes)).index_add_(0, labels, to_center) / sizes
    indices = {
        "silhouette": _silhouettes(points, labels, sizes).mean(),
        "calinski_harabasz": _dispersions_ratio(points, centers, to_center, sizes),
        "davies_bouldin": _likenesses(centers, spreads),
    }
    return {name: float(index) for name, index in indices.items()}


def _silhouettes(points: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """(b - a) / max(a, b) of each point (N,): mean distances to its own cluster's others and to the nearest cluster."""
    found = []
    for rows, distances in _distances(points):
        own, column = labels[rows], torch.arange(distances.shape[1], device=points.device)
        means = distances.new_zeros(len(sizes), len(own)).index_add_(0, labels, distances)
        within = means[own, column] / (sizes[own] - 1)  # 0 / 0 for a cluster of one
        means /= sizes[:, None]
        means[own, column] = torch.inf
        nearest = means.amin(0)
        found.append((nearest - within) / torch.maximum(nearest, within))
    return torch.cat(found).nan_to_num_(0.0)


def _dispersions_ratio(points: Tensor, centers: Tensor, to_center: Tensor, sizes: Tensor) -> Tensor:
    """Between clusters over within, each by its degrees of freedom; 1 where nothing is dispersed within."""
    between = (sizes * (centers - points.mean(0)).square().sum(1)).sum()
    within = to_center.square().sum()
    ratio = between * (len(points) - len(sizes)) / (within * (len(sizes) - 1))
    return torch.where(within == 0, 1.0, ratio)


def _likenesses(centers: Tensor, spreads: Tensor) -> Tensor:
    """Mean over clusters of their likeness to the one that they are most like: both spreads over the distance."""
    most = []
    for rows, distances in _distances(centers):
        likeness = (spreads[:, None] + spreads[rows]) / distances
        most.append(likeness.masked_fill_(distances == 0, 0.0).amax(0))  # as scikit-learn takes clusters in one place
    return torch.cat(most).mean()


def _distances(points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Distances (N, n) from all points to those of a slice, slice by slice; 0 where rounding leaves no difference."""
    squares = points.square().sum(1)
    step = max(1, BLOCK.get(points.device.type, BLOCK["cpu"]) // len(points))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        both = squares[:, None] + squares[rows]
        difference = torch.addmm(both, points, points[rows].T, alpha=-2)
        yield rows, torch.where(difference > ROUNDING * both, difference, 0.0).sqrt_()


def _integers(ids: Tensor | np.ndarray) -> np.ndarray:
    """The ids on the host, int64."""
    ids = ids.cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {ids.dtype}")
    return ids.astype(np.int64)


def _pairs(sizes: np.ndarray | int) -> int:
    """Pairs within groups of these sizes."""
    return int(np.sum(sizes * (np.asarray(sizes) - 1)) // 2)


def _adjusted_rand_index(in_both: int, in_cluster: int, of_pid: int, *, total: int) -> float:
    """Hubert and Arabie's index from numbers of pairs: (in_both - expected) / (mean of the two - expected)."""
    if in_cluster == of_pid == in_both:  # equal partitions; for two trivial ones the quotient would be 0 / 0
        return 1.0
    expected = in_cluster * of_pid / total
    return (in_both - expected) / ((in_cluster + of_pid) / 2 - expected)


def nearest_elsewhere(features: Tensor, camids: np.ndarray) -> np.ndarray:
    """Each sample's nearest one of another camera: unit rows (N, d), (N,) -> (N,) int64."""
    camera = torch.as_tensor(camids)
    if (camera == camera[0]).all():
        raise ValueError("all images are of one camera: there is none of another to be the nearest")
    return (features @ features.T).masked_fill(camera[:, None] == camera, -torch.inf).argmax(1).numpy()


def gathering(
    nearest: np.ndarray, pseudo_labels: np.ndarray, *, frames: np.ndarray, pids: np.ndarray, camids: np.ndarray
) -> dict[str, float]:
    """How far identities gather, in a network's features and in clusters (BUC Fig. 4, DBC Fig. 6).

    Percent of the samples whose nearest one of another camera is of the same identity: by the features, as ``nearest``
    (N,) has it, and, without any network, by the pixels of ``frames`` (N, H, W, 3). Then clusters, those of several
    identities, and the samples in these. ``pseudo_labels``, ``pids`` and ``camids`` are (N,).
    """
    pixels = torch.as_tensor(frames).flatten(1).float()
    by_pixels = nearest_elsewhere(torch.nn.functional.normalize(pixels - pixels.mean(0)), camids)
    mixed = np.bincount(np.unique(np.stack([pseudo_labels, pids]), axis=1)[0]) > 1
    return {
        "nearest of the same identity (%)": 100 * float((pids[nearest] == pids).mean()),
        "so by pixels alone (%)": 100 * float((pids[by_pixels] == pids).mean()),
        "clusters": len(mixed),
        "of several identities": int(mixed.sum()),
        "samples in these": int(mixed[pseudo_labels].sum()),
    }
