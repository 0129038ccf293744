"""Linkages and regularizers: the equations of both papers by which clusters are merged, one line each.

Symbols are the papers': clusters A and B of ``n_a`` and ``n_b`` images; ``d_ab`` the linkage between them, ``d_a`` the
dispersion within A, q = A ∪ B, and s any other cluster. Every function works element by element on numbers or on
tensors that broadcast, so a whole row of the cluster matrix is one call.

- a linkage has the signature ``(dist)``: distances of the images of A to those of B, (n_a, n_b) -> ()
- an update (Lance–Williams) ``(d_as, d_bs, d_ab, n_a, n_b)`` -> ``d_qs``; the linkage of q to s without its images
"""

import torch
from torch import Tensor


def pair_distances(a: Tensor, b: Tensor, *, distance: str) -> Tensor:
    """Image distances ``‖v_a − v_b‖`` of BUC Eq. (4), in float64: (n_a, d), (n_b, d) -> (n_a, n_b).

    Released code: squared. Differences under 2⁻⁴⁰ are rounding and count as none, so equal features are at 0.
    """
    squared = snap(torch.cdist(a.double(), b.double()).square_())
    return squared if distance == "squared" else squared.sqrt_()


def snap(values: Tensor) -> Tensor:
    """Float64 values on a grid of 2⁻⁴⁰, in place: what differs by rounding alone becomes a tie.

    6144 lies in the middle of [2¹², 2¹³), where float64 has 40 binary places left.
    """
    return values.add_(6144.0).sub_(6144.0)


def minimum(dist: Tensor) -> Tensor:
    """``min d(x_a, x_b)``, BUC Eq. (4)."""
    return dist.amin()


def maximum(dist: Tensor) -> Tensor:
    """``max d(x_a, x_b)``, BUC Section 3.2."""
    return dist.amax()


def average(dist: Tensor) -> Tensor:
    """``1 / (n_a n_b) Σ dist``, DBC Eq. (4); of two clusters' mean features it is BUC's centroid distance."""
    return dist.mean()


def minimum_update(d_as, d_bs, d_ab, n_a, n_b):
    """``min{d_as, d_bs}``, DBC Section III-F."""
    return torch.minimum(d_as, d_bs)


def maximum_update(d_as, d_bs, d_ab, n_a, n_b):
    """``max{d_as, d_bs}``."""
    return torch.maximum(d_as, d_bs)


def average_update(d_as, d_bs, d_ab, n_a, n_b):
    """``n_a / (n_a + n_b) d_as + n_b / (n_a + n_b) d_bs``, DBC Eq. (6)."""
    return (n_a * d_as + n_b * d_bs) / (n_a + n_b)


def centroid_update(d_as, d_bs, d_ab, n_a, n_b):
    """Lance–Williams for *squared* distances of mean features: Eq. (6) less the part along the line from A to B."""
    return average_update(d_as, d_bs, d_ab, n_a, n_b) - n_a * n_b / (n_a + n_b) ** 2 * d_ab


def size(n):
    """A cluster's share of ``|A| + |B|``, BUC Eq. (5)."""
    return n


def dispersion_sum(total, n):
    """``1/n Σ dist`` over all ordered pairs within a cluster, whose sum is ``total``: DBC Eq. (3) literally."""
    return total / n


def dispersion_mean(total, n):
    """``1/n² Σ dist``. Released code: the mean over all ordered pairs, the n zeros included."""
    return total / n**2


def dispersion_eq7(d_a, d_b, d_ab, n_a, n_b):
    """``d_q`` by DBC Eq. (7) literally; for no definition of ``d_a`` is it what that definition gives for q."""
    return (n_a * d_a + n_b * d_b + n_a * n_b * d_ab) / (n_a + n_b + n_a * n_b)


def dispersion_sum_exact(d_a, d_b, d_ab, n_a, n_b):
    """``d_q`` as DBC Eq. (3) gives it: pairs within A, within B, and across in both orders."""
    return (n_a * d_a + n_b * d_b + 2 * n_a * n_b * d_ab) / (n_a + n_b)


def dispersion_mean_exact(d_a, d_b, d_ab, n_a, n_b):
    """``d_q`` as the mean over all ordered pairs gives it."""
    return (n_a**2 * d_a + n_b**2 * d_b + 2 * n_a * n_b * d_ab) / (n_a + n_b) ** 2


def dissimilarity(linkage, regularizer_a, regularizer_b, weight):
    """``D(A, B) = D_distance + λ D_regularizer``, BUC Eq. (6); ``D_ab = d_ab + λ (d_a + d_b)``, DBC Eq. (5)."""
    return linkage + weight * (regularizer_a + regularizer_b)
