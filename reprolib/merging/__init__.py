"""One clustering stage: features and pseudo-labels in, pseudo-labels with m clusters fewer out.

The ranking is exact: distances are float64's, what differs by rounding alone is equal, and ties go to the smaller
labels, so block size, threads and device don't change the result. Two exceptions. Of Euclidean distances below about
5e-4 a tie may be lost in rounding. And ranked again after every merge, more than 4,096 clusters of float32 features, on
CUDA 16,384 (``ranked_again.DOUBLE_UP_TO``), may be so alike that a float32 product leaves too many pairs to be scored
one by one: then linkages and shares are rounded to float32 on that device.
"""

import torch
from torch import Tensor

from reprolib.devices import keeping_freed_memory
from reprolib.merging.clusters import Clusters
from reprolib.merging.ranked_again import merge_ranked_again
from reprolib.merging.ranked_once import merge_ranked_once
from reprolib.recipe import Criterion


@keeping_freed_memory()
@torch.no_grad()
def merge_clusters(features: Tensor, pseudo_labels: Tensor, *, criterion: Criterion, merges_per_stage: int) -> Tensor:
    """Merge the closest clusters until there are ``merges_per_stage`` fewer; BUC Section 3.2, DBC Algorithm 1.

    ``features`` (N, d), unit rows, float32 or float64; ``pseudo_labels`` (N,) int64 in [0, C), no cluster empty.
    Returns (N,) int64 in [0, C − m), on the same device: the smaller label survives a merge, and new labels count up
    in the order of the surviving ones. Raises ValueError on anything else, and if C ≤ m.
    """
    if not isinstance(criterion, Criterion):
        raise ValueError(f"{criterion!r} is no Criterion: give Criterion('minimum'), or a recipe's own")
    sizes = _check(features, pseudo_labels, merges_per_stage)
    in_order = bool((pseudo_labels.diff() >= 0).all())  # as in every first stage: no copy of the features is needed
    images = features if in_order else features[torch.argsort(pseudo_labels, stable=True)]
    clusters = Clusters(images, sizes, criterion)
    merge = merge_ranked_once if criterion.ranking == "once" else merge_ranked_again
    survivor = torch.tensor(merge(clusters, merges_per_stage), device=pseudo_labels.device)  # (C,) labels
    return torch.unique(survivor, return_inverse=True)[1][pseudo_labels]


def _check(features: Tensor, pseudo_labels: Tensor, merges_per_stage: int) -> Tensor:
    """Cluster sizes (C,), or ValueError."""
    if not isinstance(features, Tensor) or not isinstance(pseudo_labels, Tensor):
        raise ValueError("features and pseudo_labels must be tensors: torch.from_numpy makes them of arrays")
    if features.ndim != 2 or len(features) == 0 or features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features must be (N, d) float32 or float64, not {tuple(features.shape)} {features.dtype}")
    if pseudo_labels.shape != features.shape[:1] or pseudo_labels.dtype != torch.int64:
        got = f"{tuple(pseudo_labels.shape)} {pseudo_labels.dtype}"
        raise ValueError(f"pseudo_labels must be ({len(features)},) int64, not {got}")
    if pseudo_labels.device != features.device:
        raise ValueError(f"features are on {features.device}, pseudo_labels on {pseudo_labels.device}")
    if not torch.isfinite(torch.stack(torch.aminmax(features))).all():  # NaN wins in both
        raise ValueError("features must be finite: there is a NaN or an infinity among them")
    low, high = (int(v) for v in torch.aminmax(pseudo_labels))
    if low < 0 or high >= len(features):
        raise ValueError(f"pseudo_labels lie in [{low}, {high}], {len(features)} images allow 0 to {len(features) - 1}")
    sizes = torch.bincount(pseudo_labels)
    if (sizes == 0).any():
        raise ValueError(f"no image has label {int(sizes.argmin())}: pseudo_labels must be 0, 1, ..., C - 1")
    if not 0 < merges_per_stage <= high:
        raise ValueError(f"merges_per_stage={merges_per_stage}: {high + 1} clusters allow 1 to {high}")
    return sizes
