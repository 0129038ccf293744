"""Cluster quality: agreement of pseudo-labels with the true identities, and cluster separation, which needs no labels.

Used for diagnosis and for selecting a stage: nothing computed here may reach training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = {"cpu": 2**21, "cuda": 2**25}  # distances held at a time
ROUNDING = 1e-13  # float64 rounding error of a squared distance, relative to the squared lengths
MANY = 20_000  # above this many images a run computes validity only if it selects the stage, because it costs O(N²)


@dataclass(frozen=True)
class ClusterQuality:
    """Agreement of clusters with identities, as fractions; every field can be stored as JSON.

    The fields that need identities cover the images with a pid of 0 or more, and are None without such images (-1 means
    unknown).
    """

    num_clusters: int
    num_singletons: int
    largest_cluster: int  # number of its images
    size_histogram: list[list[int]]  # [size, number of clusters of that size], by ascending size
    purity: float | None  # share of images whose pid is the most frequent one in their cluster
    adjusted_rand_index: float | None  # 1 for equal partitions, about 0 for chance agreement
    pair_precision: float | None  # share of the pairs in the same cluster that have the same pid; 1 without such pairs
    pair_recall: float | None  # share of the pairs with the same pid that are in the same cluster; 1 without such pairs


def cluster_quality(pseudo_labels: Tensor | np.ndarray, pids: Tensor | np.ndarray) -> ClusterQuality:
    """Compare ``pseudo_labels`` (N,) with ``pids`` (N,), integers in any numbering, each on any device.

    Raises:
        ValueError: shapes that differ, values that are not integers, or no images.
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
    """Compute the fields of :class:`ClusterQuality` that need identities, for images (n,) of known identity."""
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


def recall_across_cameras(pseudo_labels: np.ndarray, pids: np.ndarray, camids: np.ndarray) -> float:
    """Return the share of the pairs with one pid and two cameras that are in the same cluster; 1 without such pairs.

    ``pseudo_labels``, ``pids`` and ``camids`` are (N,) integers; images with a negative pid (unknown) are left out.
    """
    known = pids >= 0
    pseudo_labels, pids, camids = pseudo_labels[known], pids[known], camids[known]

    def across(*groups: np.ndarray) -> int:
        alike, same_camera = (np.unique(ids, axis=1, return_counts=True)[1] for ids in (groups, (*groups, camids)))
        return _pairs(alike) - _pairs(same_camera)

    of_pid = across(pids)
    return across(pids, pseudo_labels) / of_pid if of_pid else 1.0


def cluster_validity(features: Tensor, pseudo_labels: Tensor) -> dict[str, float]:
    """Measure how compact and well separated clusters are, without identities, so that unlabeled data suffices.

    Returns the mean silhouette (Rousseeuw 1987; -1 to 1, higher is better), the Calinski-Harabasz index (1974; higher
    is better) and the Davies-Bouldin index (1979; lower is better) on Euclidean distances, as defined in scikit-learn,
    in float64. The result is empty where they are undefined: for one cluster, or as many clusters as images.
    ``features`` is (N, d), ``pseudo_labels`` is (N,), each on any device.

    Raises:
        ValueError: labels that are not integers, or not one label per point.
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
    """Silhouette (b - a) / max(a, b) of each point (N,): mean distance a to its own cluster, b to the nearest other."""
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
    """Dispersion between clusters over dispersion within, each by its degrees of freedom; 1 if there is none within."""
    between = (sizes * (centers - points.mean(0)).square().sum(1)).sum()
    within = to_center.square().sum()
    ratio = between * (len(points) - len(sizes)) / (within * (len(sizes) - 1))
    return torch.where(within == 0, 1.0, ratio)


def _likenesses(centers: Tensor, spreads: Tensor) -> Tensor:
    """Mean over clusters of the likeness to their most similar cluster: the sum of both spreads over the distance."""
    most = []
    for rows, distances in _distances(centers):
        likeness = (spreads[:, None] + spreads[rows]) / distances
        most.append(likeness.masked_fill_(distances == 0, 0.0).amax(0))  # coinciding clusters, as in scikit-learn
    return torch.cat(most).mean()


def _distances(points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield distances (N, n) from all points to those of a slice, slice by slice; 0 if not larger than rounding."""
    squares = points.square().sum(1)
    step = max(1, BLOCK.get(points.device.type, BLOCK["cpu"]) // len(points))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        both = squares[:, None] + squares[rows]
        difference = torch.addmm(both, points, points[rows].T, alpha=-2)
        yield rows, torch.where(difference > ROUNDING * both, difference, 0.0).sqrt_()


def _integers(ids: Tensor | np.ndarray) -> np.ndarray:
    """Return the ids as int64 on the host."""
    ids = ids.cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {ids.dtype}")
    return ids.astype(np.int64)


def _pairs(sizes: np.ndarray | int) -> int:
    """Count the pairs within groups of these sizes."""
    return int(np.sum(sizes * (np.asarray(sizes) - 1)) // 2)


def _adjusted_rand_index(in_both: int, in_cluster: int, of_pid: int, *, total: int) -> float:
    """Adjusted Rand index (Hubert and Arabie) from pair counts: (in_both - expected) / (mean of the two - expected)."""
    if in_cluster == of_pid == in_both:  # equal partitions; for two trivial partitions the quotient would be 0 / 0
        return 1.0
    expected = in_cluster * of_pid / total
    return (in_both - expected) / ((in_cluster + of_pid) / 2 - expected)


def nearest_elsewhere(features: Tensor, camids: np.ndarray) -> np.ndarray:
    """Find the nearest sample from another camera for each sample: unit rows (N, d), (N,) -> (N,) int64."""
    camera = torch.as_tensor(camids)
    if (camera == camera[0]).all():
        raise ValueError("all images are from one camera; a nearest neighbor in another camera needs at least two")
    return (features @ features.T).masked_fill(camera[:, None] == camera, -torch.inf).argmax(1).numpy()


def gathering(
    nearest: np.ndarray, pseudo_labels: np.ndarray, *, frames: np.ndarray, pids: np.ndarray, camids: np.ndarray
) -> dict[str, float]:
    """Measure how well identities group together in a network's features and in clusters (BUC Fig. 4, DBC Fig. 6).

    First the percentage of samples whose nearest neighbor from another camera has the same identity: by the features,
    with the neighbors given as ``nearest`` (N,), and without any network, by the pixels of ``frames`` (N, H, W, 3).
    Then the number of clusters, of clusters with several identities, and of samples in the latter; and the number of
    identities, and of those that lie mostly, by more than half of their samples, in clusters where they are the most
    frequent one. ``pseudo_labels``, ``pids`` and ``camids`` are (N,); a pid of -1, unknown, counts as no identity.
    """
    pixels = torch.as_tensor(frames).flatten(1).float()
    by_pixels = nearest_elsewhere(torch.nn.functional.normalize(pixels - pixels.mean(0)), camids)
    known = pids >= 0
    table = np.zeros((pseudo_labels.max() + 1, max(1, pids.max() + 1)), int)  # samples of each identity in each cluster
    np.add.at(table, (pseudo_labels[known], pids[known]), 1)
    mixed = (table > 0).sum(1) > 1
    at_home = table.argmax(1)[pseudo_labels] == pids
    distinct = [at_home[pids == pid].mean() > 0.5 for pid in np.unique(pids[known])]
    return {
        "nearest of the same identity (%)": 100 * float((pids[nearest] == pids)[known].mean()),
        "so by pixels alone (%)": 100 * float((pids[by_pixels] == pids)[known].mean()),
        "clusters": len(mixed),
        "of several identities": int(mixed.sum()),
        "samples in these": int(mixed[pseudo_labels].sum()),
        "identities": len(distinct),
        "mostly in clusters of theirs": int(sum(distinct)),
    }
