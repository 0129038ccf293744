"""Evaluation: rank the gallery for every query and compute the CMC and the mean AP by both common definitions.

Only the gallery images of the query's identity need a rank, and a rank is the number of smaller distances. The gallery
is therefore never sorted together with its indices, and for a query with few matches it is not sorted at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reprolib.devices import multiplying_in

_BLOCK_DISTANCES = 2**24  # distances held at a time: 64 MiB; with fewer rows the matrix product is slower
_FEW_MATCHES = 32  # per query; up to about this many, numpy counts faster than it sorts (measured at G = 15,913)

Ids = Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Quality of a ranking as fractions, over the queries that have a match in another camera.

    Attributes:
        cmc: (top_k,) float64 on the host; cmc[k - 1] is the share of queries with a match among the first k.
        mean_ap: trapezoid rule, the area under the precision-recall curve, as in both released programs.
        mean_ap_step: step sum, the mean precision at the matches, as in most later work.
        num_valid_queries: number of queries with a match.
    """

    cmc: Tensor
    mean_ap: float
    mean_ap_step: float
    num_valid_queries: int

    def __repr__(self) -> str:
        """Return a short summary."""
        both = f"mAP {self.mean_ap:.1%} ({self.mean_ap_step:.1%} by step sum)"
        return f"Ranking(rank-1 {self.cmc[0]:.1%}, {both}, {self.num_valid_queries:,} queries)"


@dataclass(frozen=True, eq=False)
class _Matches:
    """Where the identity of each query is found: the gallery images sorted by pid, and one range per query."""

    by_pid: Tensor  # (G,) gallery indices
    start: Tensor  # (Q,) into by_pid
    count: Tensor  # (Q,)
    query_camids: Tensor  # (Q,)
    gallery_camids: Tensor  # (G,)

    def of(self, queries: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return columns (B, R), ascending and padded, and masks of matches and of junk (same pid and camid)."""
        count = self.count[queries, None]
        offset = torch.arange(max(1, int(count.max())), device=count.device)
        columns = self.by_pid[(self.start[queries, None] + offset).clamp(max=len(self.by_pid) - 1)]
        same_camid = self.gallery_camids[columns] == self.query_camids[queries, None]
        return columns, (offset < count) & ~same_camid, (offset < count) & same_camid


def rank_gallery(
    query_features: Tensor | np.ndarray,
    gallery_features: Tensor | np.ndarray,
    *,
    query_pids: Ids,
    gallery_pids: Ids,
    query_camids: Ids,
    gallery_camids: Ids,
    top_k: int = 50,
) -> Ranking:
    """Rank the gallery by Euclidean distance to every query.

    ``query_features`` (Q, d) and ``gallery_features`` (G, d) are floating point and on one device, where the distances
    are computed block by block; the ids are (Q,) and (G,) integers. Everything else, including the errors, is as in
    :func:`rank_from_distances`.
    """
    query_features, gallery_features = map(_tensor, (query_features, gallery_features))
    shapes = tuple(query_features.shape), tuple(gallery_features.shape)
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"features must have shapes (Q, d) and (G, d), not {shapes[0]} and {shapes[1]}")
    counts, device = (len(query_features), len(gallery_features)), query_features.device
    matches = _find_matches(query_pids, gallery_pids, query_camids, gallery_camids, shape=counts, device=device)
    dtype = torch.promote_types(torch.promote_types(query_features.dtype, gallery_features.dtype), torch.float32)
    query, gallery = query_features.to(dtype), gallery_features.to(dtype)
    squared_norm = torch.linalg.vector_norm(gallery, dim=1).square()  # (G,); vecdot would hold (G, d) products
    center = gallery.mean(0)
    if center @ center > 0.99 * squared_norm.median():  # so similar that rounding would hide the differences
        query, gallery = query - center, gallery - center
        squared_norm = torch.linalg.vector_norm(gallery, dim=1).square()
    held = query.new_empty(min(len(query), _rows_of_block(len(gallery))), len(gallery))

    def distances(queries: slice) -> Tensor:
        # ‖q − g‖² − ‖q‖² orders the gallery in the same way as ‖q − g‖
        some = query[queries]
        with multiplying_in("ieee", some.device):
            return torch.addmm(squared_norm, some, gallery.T, alpha=-2, out=held[: len(some)])

    return _rank(distances, matches, top_k)


def rank_from_distances(
    distmat: Tensor | np.ndarray,
    *,
    query_pids: Ids,
    gallery_pids: Ids,
    query_camids: Ids,
    gallery_camids: Ids,
    top_k: int = 50,
) -> Ranking:
    """Rank the gallery by a distance matrix ``distmat`` (Q, G).

    For each query, gallery images with the query's pid and camid are left out. A query without a remaining match is
    skipped, and so is a query with a negative pid, whose identity is unknown. Images at equal distance share one
    threshold of the precision-recall curve, as in scikit-learn, so that both APs are independent of the gallery's
    order; the CMC takes them in the order of the gallery.

    Raises:
        ValueError: shapes that do not match, a NaN or infinite distance, an empty set, ``top_k`` below 1, or no valid
            query.
    """
    distmat = _tensor(distmat)
    if distmat.ndim != 2:
        raise ValueError(f"distmat must have shape (Q, G), not {tuple(distmat.shape)}")
    distmat = distmat.to(torch.promote_types(distmat.dtype, torch.float32))
    matches = _find_matches(
        query_pids, gallery_pids, query_camids, gallery_camids, shape=distmat.shape, device=distmat.device
    )
    return _rank(lambda queries: distmat[queries].clone(), matches, top_k)


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """Return the values without a gradient; an array is copied only if torch cannot use its memory."""
    if isinstance(values, Tensor):
        return values.detach()
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


def _ids(values: Ids, count: int, name: str) -> Tensor:
    """Return the ids (count,) on the host."""
    ids = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if ids.shape != (count,) or ids.dtype.kind not in "iub":
        raise ValueError(f"{name} must be {count} integers, not {ids.dtype} of shape {ids.shape}")
    return torch.from_numpy(ids.astype(np.int64))


def _find_matches(
    query_pids: Ids,
    gallery_pids: Ids,
    query_camids: Ids,
    gallery_camids: Ids,
    *,
    shape: tuple[int, int],
    device: torch.device,
) -> _Matches:
    """Check the ids against ``shape`` (Q, G) and find the identity of each query in the gallery."""
    num_query, num_gallery = shape
    if num_query == 0 or num_gallery == 0:
        raise ValueError(f"{num_query} queries and {num_gallery} gallery images: neither set may be empty")
    wanted, pids = _ids(query_pids, num_query, "query_pids"), _ids(gallery_pids, num_gallery, "gallery_pids")
    by_pid = pids.argsort(stable=True)
    start = torch.searchsorted(pids[by_pid], wanted)
    count = torch.searchsorted(pids[by_pid], wanted, right=True) - start
    count[wanted < 0] = 0
    query_camids = _ids(query_camids, num_query, "query_camids")
    gallery_camids = _ids(gallery_camids, num_gallery, "gallery_camids")
    return _Matches(*(t.to(device) for t in (by_pid, start, count, query_camids, gallery_camids)))


def _rows_of_block(num_gallery: int) -> int:
    return max(1, _BLOCK_DISTANCES // num_gallery)


def _rank(distances: Callable[[slice], Tensor], matches: _Matches, top_k: int) -> Ranking:
    """Rank block by block; ``distances`` returns the (B, G) distances of a block, which may be overwritten."""
    if top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1")
    num_query, num_gallery = len(matches.start), len(matches.by_pid)
    size = _rows_of_block(num_gallery)
    blocks = [slice(i, i + size) for i in range(0, num_query, size)]
    per_query = [_rank_block(distances(block), *matches.of(block)) for block in blocks]
    first, ap, ap_step = (torch.cat(values).cpu() for values in zip(*per_query, strict=True))
    if len(first) == 0:
        raise ValueError("no query is valid: none has a gallery image of the same pid from another camera")
    hits = torch.bincount(first, minlength=top_k)[:top_k]
    return Ranking(hits.cumsum(0).double() / len(first), ap.mean().item(), ap_step.mean().item(), len(first))


def _rank_block(distances: Tensor, columns: Tensor, is_match: Tensor, is_junk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the position of the first match (from 0) and both APs, each (V,), for the V valid queries of a block.

    The APs are by trapezoid rule and by step sum. ``distances`` is (B, G) and is overwritten; the other arguments are
    (B, R), see :class:`_Matches`.
    """
    if not (torch.isfinite(distances.sum(1)).all() or torch.isfinite(distances).all()):  # a finite sum has finite terms
        raise ValueError("the distances, or the features that they are computed from, are not all finite")
    own = distances.gather(1, columns)  # (B, R)
    rows, k = is_junk.nonzero(as_tuple=True)
    distances[rows, columns[rows, k]] = torch.inf

    at = _sort_rows(own.masked_fill(~is_match, torch.inf))  # (B, R) distances of the matches, then padding
    nearer, within = _count(distances, at)
    matches_nearer, matches_within = torch.searchsorted(at, at), torch.searchsorted(at, at, right=True)
    precision = matches_within.double() / within
    # The area grows only between the point just before a match and the match; the curve starts at precision 1.
    precision_before = torch.where(nearer > 0, matches_nearer.double() / nearer, 1.0)
    count = is_match.sum(1)
    ap, ap_step = (p.where(at < torch.inf, 0).sum(1) / count for p in ((precision_before + precision) / 2, precision))

    first = nearer[:, 0]
    tied = (within[:, 0] - first > 1).nonzero()[:, 0]
    if len(tied):
        is_nearest = is_match[tied] & (own[tied] == at[tied, :1])
        column = columns[tied].where(is_nearest, distances.shape[1]).amin(1, keepdim=True)
        is_earlier = torch.arange(distances.shape[1], device=column.device) < column
        first[tied] += ((distances[tied] == at[tied, :1]) & is_earlier).sum(1)
    valid = count > 0
    return first[valid], ap[valid], ap_step[valid]


def _count(distances: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Count, in each row of (B, G), the entries < and the entries <= each finite entry of that row of (B, R)."""
    finite = at < torch.inf
    if distances.device.type != "cpu" or finite.sum() > _FEW_MATCHES * len(at):
        ranked = _sort_rows(distances)
        return torch.searchsorted(ranked, at), torch.searchsorted(ranked, at, right=True)
    values, row = distances.numpy(), finite.nonzero()[:, 0].tolist()
    pairs = list(zip(row, at[finite].tolist(), strict=True))
    nearer, within = torch.zeros(2, *at.shape, dtype=torch.int64)
    nearer[finite] = torch.tensor([np.count_nonzero(values[i] < t) for i, t in pairs], dtype=torch.int64)
    within[finite] = torch.tensor([np.count_nonzero(values[i] <= t) for i, t in pairs], dtype=torch.int64)
    return nearer, within


def _sort_rows(values: Tensor) -> Tensor:
    """Sort the rows of (B, n) in ascending order; on the host with numpy, because torch would sort the indices too."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values
