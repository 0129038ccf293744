"""One clustering stage: features and pseudo-labels in, pseudo-labels with m fewer clusters out.

The ranking of pairs is exact: distances are float64, values that differ only by rounding count as equal, and ties go to
the smaller labels. Block size, number of threads and device therefore do not change the result. There are two
exceptions. Among Euclidean distances below about 5e-4 a tie may be lost to rounding. And if pairs are ranked again
after every merge, more than 4,096 clusters of float32 features (16,384 on CUDA, ``ranked_again.DOUBLE_UP_TO``) may be
so similar that a float32 product leaves too many pairs to be scored one by one; linkages and shares are then rounded
to float32 on that device.
"""

from numbers import Integral

import torch
from torch import Tensor

from reprolib.devices import keeping_freed_memory
from reprolib.merging.clusters import Clusters
from reprolib.merging.ranked_again import merge_ranked_again
from reprolib.merging.ranked_once import merge_ranked_once
from reprolib.recipe import Criterion

LARGEST = 1e15  # of a feature


@keeping_freed_memory()
@torch.no_grad()
def merge_clusters(features: Tensor, pseudo_labels: Tensor, *, criterion: Criterion, merges_per_stage: int) -> Tensor:
    """Merge the closest clusters until there are ``merges_per_stage`` (m) fewer; BUC Section 3.2, DBC Algorithm 1.

    Args:
        features: (N, d) float32 or float64; in a run unit rows. Distances below about 1e-6 count as zero.
        pseudo_labels: (N,) int64 in [0, C), without an empty cluster.
        criterion: how pairs of clusters are scored and ranked.
        merges_per_stage: m, the number of merges.

    Returns:
        New pseudo-labels (N,) int64 in [0, C − m), on the same device. A merge keeps the smaller of the two labels, and
        the remaining labels are renumbered in ascending order.

    Raises:
        ValueError: any other input, or C ≤ m.
    """
    if not isinstance(criterion, Criterion):
        raise ValueError(f"a {type(criterion).__name__} is no Criterion; pass Criterion('minimum') or BUC.criterion")
    sizes = _check(features, pseudo_labels, merges_per_stage)
    in_order = bool((pseudo_labels.diff() >= 0).all())  # as in every first stage: the features need not be copied
    images = features if in_order else features[torch.argsort(pseudo_labels, stable=True)]
    clusters = Clusters(images, sizes, criterion)
    merge = merge_ranked_once if criterion.ranking == "once" else merge_ranked_again
    survivor = torch.tensor(merge(clusters, merges_per_stage), device=pseudo_labels.device)  # (C,) labels
    return torch.unique(survivor, return_inverse=True)[1][pseudo_labels]


def _check(features: Tensor, pseudo_labels: Tensor, merges_per_stage: int) -> Tensor:
    """Check the input and return the cluster sizes (C,)."""
    if not isinstance(features, Tensor) or not isinstance(pseudo_labels, Tensor):
        raise ValueError("features and pseudo_labels must be tensors; convert arrays with torch.from_numpy")
    if features.ndim != 2 or features.numel() == 0 or features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features must be (N, d) float32 or float64, not {tuple(features.shape)} {features.dtype}")
    if pseudo_labels.shape != features.shape[:1] or pseudo_labels.dtype != torch.int64:
        got = f"{tuple(pseudo_labels.shape)} {pseudo_labels.dtype}"
        raise ValueError(f"pseudo_labels must be ({len(features)},) int64, not {got}")
    if pseudo_labels.device != features.device:
        raise ValueError(
            f"features are on {features.device}, pseudo_labels on {pseudo_labels.device}; move them to the same device"
        )
    if not (torch.stack(torch.aminmax(features)).abs() < LARGEST).all():  # false for NaN, too
        raise ValueError(f"features must be finite and below {LARGEST:g}, because their distances are squared")
    low, high = (int(v) for v in torch.aminmax(pseudo_labels))
    if low < 0 or high >= len(features):
        raise ValueError(
            f"pseudo_labels lie in [{low}, {high}], but {len(features)} images allow only 0 to {len(features) - 1}; "
            "renumber them: torch.unique(pseudo_labels, return_inverse=True)[1]"
        )
    sizes = torch.bincount(pseudo_labels)
    if (sizes == 0).any():
        raise ValueError(f"no image has label {int(sizes.argmin())}: pseudo_labels must be 0, 1, ..., C - 1")
    if isinstance(merges_per_stage, bool) or not isinstance(merges_per_stage, Integral):
        raise ValueError(f"merges_per_stage={merges_per_stage!r} must be a number of merges, such as 646, not a share")
    if not 0 < merges_per_stage <= high:
        raise ValueError(f"merges_per_stage={merges_per_stage}, but {high + 1} clusters allow 1 to {high}")
    return sizes
