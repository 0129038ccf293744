"""Linkages and regularizers: the merge criteria of both papers, about one line per equation.

The symbols are those of the papers: clusters A and B have ``n_a`` and ``n_b`` images, ``d_ab`` is the distance between
them, ``d_a`` is the dispersion within A, q = A ∪ B is the merged cluster, and s is any other cluster. All functions of
one kind have the same signature:

- linkage ``(a, b, distance)``: features (…, n_a, d) and (…, n_b, d) -> (…) float64, for one pair or many pairs at once;
  ``distance`` is "euclidean" or "squared"
- linkage update ``(d_as, d_bs, d_ab, n_a, n_b)`` -> ``d_qs``, computed without the features (Lance–Williams)
- dispersion update ``(d_a, d_b, d_ab, n_a, n_b)`` -> ``d_q``

Updates take numbers or broadcastable tensors, so that one call updates a whole row of the cluster distance matrix.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import threshold_

ROUNDING = 1e-12  # in float64, a squared distance below this is zero and a difference of scores below it is a tie


def pair_distances(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """``‖v_a − v_b‖`` of BUC Eq. (4): (…, n_a, d), (…, n_b, d) -> (…, n_a, n_b) float64. Released code: squared."""
    squared = threshold_(torch.cdist(a.double(), b.double()).square_(), ROUNDING, 0.0)
    return squared if distance == "squared" else squared.sqrt_()


def minimum(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """``min d(x_a, x_b)``, BUC Eq. (4)."""
    return pair_distances(a, b, distance).amin((-2, -1))


def maximum(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """``max d(x_a, x_b)``, BUC Section 3.2."""
    return pair_distances(a, b, distance).amax((-2, -1))


def centroid(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Distance between the mean features, BUC Section 3.2."""
    means = (x.double().mean(-2, keepdim=True) for x in (a, b))
    return pair_distances(*means, distance)[..., 0, 0]


def average(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """``d_ab = 1 / (n_a n_b) Σ dist(a_i, b_j)``, DBC Eq. (4)."""
    return pair_distances(a, b, distance).mean((-2, -1))


def minimum_update(d_as, d_bs, d_ab, n_a, n_b):
    """``d_qs = min{d_as, d_bs}``, DBC Section III-F."""
    return torch.minimum(d_as, d_bs)


def maximum_update(d_as, d_bs, d_ab, n_a, n_b):
    """``d_qs = max{d_as, d_bs}``."""
    return torch.maximum(d_as, d_bs)


def centroid_update(d_as, d_bs, d_ab, n_a, n_b):
    """Update for squared distances between mean features; other distances have no such formula."""
    return average_update(d_as, d_bs, d_ab, n_a, n_b) - n_a * n_b / (n_a + n_b) ** 2 * d_ab


def average_update(d_as, d_bs, d_ab, n_a, n_b):
    """``d_qs = n_a / (n_a + n_b) d_as + n_b / (n_a + n_b) d_bs``, DBC Eq. (6)."""
    return (n_a * d_as + n_b * d_bs) / (n_a + n_b)


def size(n):
    """One cluster's contribution to ``|A| + |B|``, BUC Eq. (5)."""
    return n


def dispersion(total, n, definition: str):
    """``d_a = 1/n Σ dist`` over all ordered pairs, DBC Eq. (3) ("sum"). Released code: ``1/n² Σ dist`` ("mean")."""
    return total / n if definition == "sum" else total / n**2


def dispersion_eq7(d_a, d_b, d_ab, n_a, n_b):
    """``d_q`` exactly as printed in DBC Eq. (7), which follows from neither definition of ``d_a``."""
    return (n_a * d_a + n_b * d_b + n_a * n_b * d_ab) / (n_a + n_b + n_a * n_b)


def dispersion_sum(d_a, d_b, d_ab, n_a, n_b):
    """``d_q`` that follows from DBC Eq. (3): the pairs within A, within B, and between A and B in both orders."""
    return (n_a * d_a + n_b * d_b + 2 * n_a * n_b * d_ab) / (n_a + n_b)


def dispersion_mean(d_a, d_b, d_ab, n_a, n_b):
    """``d_q`` that follows from the mean over all n² ordered pairs."""
    return (n_a**2 * d_a + n_b**2 * d_b + 2 * n_a * n_b * d_ab) / (n_a + n_b) ** 2


def dissimilarity(linkage, share_a, share_b):
    """``D(A, B) = D_distance + λ D_diversity``, BUC Eq. (6); ``D_ab = d_ab + λ (d_a + d_b)``, DBC Eq. (5).

    A share is λ times the size or the dispersion of one cluster.
    """
    return linkage + (share_a + share_b)


LINKAGES = {"minimum": minimum, "maximum": maximum, "centroid": centroid, "average": average}
LINKAGE_UPDATES = {
    "minimum": minimum_update,
    "maximum": maximum_update,
    "centroid": centroid_update,
    "average": average_update,
}
DISPERSION_UPDATES = {"eq7": dispersion_eq7, "sum": dispersion_sum, "mean": dispersion_mean}


def require_linkage(linkage: Callable, features: Tensor) -> None:
    """Raise ValueError if a function cannot link many pairs of clusters at once, or is not symmetric.

    The function is tried on unit rows with the width, dtype and device of ``features`` (n, d).
    """
    name = linkage.__name__
    form = f"{name}(a, b, distance): features (K, n_a, d) and (K, n_b, d) of K pairs of clusters -> a tensor (K,)"
    rows = torch.eye(4, features.shape[1], dtype=features.dtype, device=features.device).expand(3, -1, -1)
    # Two images with three, both ways round, and one with one: in the first stage every cluster is one image.
    two, three, one, other = rows[:, :2], rows[:, 1:], rows[:, :1], rows[:, 1:2]
    links = [_tried(linkage, a, b, form) for a, b in ((two, three), (three, two), (one, other))]
    if not torch.allclose(links[0], links[1].to(links[0]), rtol=1e-4, atol=1e-6):
        got = f"{links[0].tolist()} for (a, b) and {links[1].tolist()} for (b, a)"
        raise ValueError(f"linkage {name} must be symmetric; it returns {got}")


def _tried(linkage: Callable, a: Tensor, b: Tensor, form: str) -> Tensor:
    """Return the linkages (3,) of three pairs of clusters, checked."""
    name = linkage.__name__
    try:
        found = linkage(a, b, "euclidean")
    except Exception as error:  # of any kind: the function is the user's
        raise ValueError(
            f"linkage {name} fails ({type(error).__name__}: {error}); its signature must be {form}"
        ) from error
    if not isinstance(found, Tensor) or found.shape != (3,):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"linkage {name} returns {got} for 3 pairs; its signature must be {form}")
    if not (torch.isfinite(found).all() and (found >= 0).all()):
        sizes = f"for clusters of {a.shape[1]} and {b.shape[1]} images it returns {found.tolist()}"
        raise ValueError(f"linkage {name} must return finite values that are not negative; {sizes}")
    return found
