"""Merging with the pairs ranked once per stage, as in both released programs.

Nearly all of the cost is the product of all features with all features. It is computed once for each pair, in the
fastest precision of the device, and only gives lower bounds of the scores. The few pairs that may merge are then scored
exactly.
"""

from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.merging import products
from reprolib.merging.clusters import Clusters

PAIRS_PER_MERGE = 64  # length of the ranking at the first try; late stages rank many pairs within one cluster
PAIR_COST = 64  # cost of one distance, or of one image, of a pair scored on its own, in entries of a float64 product


def merge_ranked_once(clusters: Clusters, merges: int) -> list[int]:
    """Return the label in which each of the C clusters ends up; the smaller label survives a merge."""
    for pairs in _rankings(clusters, merges):  # longer and longer; that of all pairs contains every merge
        survivors = _unite(pairs.tolist(), len(clusters), merges, clusters.criterion.absorbed)
        if survivors is not None:
            return survivors


def _unite(pairs: list[int], num_clusters: int, merges: int, absorbed: str) -> list[int] | None:
    """Merge down the list of pairs ``a * C + b``; return None if it ends before ``merges`` merges are done.

    "follow": a pair merges the clusters that now contain its two members (Kruskal's algorithm, chains are allowed).
    "skip": a pair is skipped if either of its members was absorbed.
    """
    parent = list(range(num_clusters))

    def find(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    for pair in pairs:
        a, b = divmod(pair, num_clusters)
        if absorbed == "follow":
            a, b = sorted((find(a), find(b)))
        if a == b or parent[a] != a or parent[b] != b:
            continue
        parent[b] = a
        merges -= 1
        if merges == 0:
            return [find(label) for label in range(num_clusters)]
    return None


def _rankings(clusters: Clusters, merges: int) -> Iterator[Tensor]:
    """Yield longer and longer parts of the exact ranking, best pair first: (K,) int64, ``a * C + b`` with a < b."""
    shares, num_pairs = clusters.shares(), PAIRS_PER_MERGE * merges
    if clusters.images.dtype == torch.float32 and not clusters.root_first and not clusters.own_linkage:
        for precision in dict.fromkeys([products.quickest(clusters.images.device), "ieee"]):
            too_dear = yield from _rankings_from_bounds(clusters, shares, merges, precision)
            if too_dear:
                break
    while True:
        yield _closest_pairs(clusters, shares, num_pairs, None)[0]
        num_pairs *= 16


def _rankings_from_bounds(
    clusters: Clusters, shares: Tensor, merges: int, precision: str
) -> Generator[Tensor, None, bool]:
    """Yield parts of the ranking from bounds and the exact scores of a few pairs: exact, but they may end too early.

    Return whether they ended because more exact scores would cost more than the whole product in float64.
    """
    pairs, bounds, beyond = _closest_pairs(clusters, shares, PAIRS_PER_MERGE * merges, precision)
    product = (len(clusters) if clusters.by_means else len(clusters.images)) ** 2 / 2
    for count in sorted({min(growth * merges, len(pairs)) for growth in (2, 8, 32, PAIRS_PER_MERGE)}):
        some, a, b = pairs[:count], pairs[:count] // len(clusters), pairs[:count] % len(clusters)
        n_a, n_b = clusters.sizes[a], clusters.sizes[b]
        if PAIR_COST * int((n_a * n_b + n_a + n_b).sum()) > product:
            return True
        scores = criteria.dissimilarity(clusters.linkages(a, b), shares[a], shares[b])
        if (scores < bounds[:count] - criteria.ROUNDING).any():
            return False  # these are not bounds: the product is less precise than it should be
        reach = float(bounds[count]) if count < len(pairs) else beyond  # a lower bound for all other pairs
        sure = scores < reach - criteria.ROUNDING
        some, order = some[sure].sort()
        yield some[_ascending(scores[sure][order])]
    return False


def _closest_pairs(
    clusters: Clusters, shares: Tensor, num_pairs: int, precision: str | None
) -> tuple[Tensor, Tensor, float]:
    """Return the ``num_pairs`` pairs with the lowest scores, sorted, ties by label: (K,) int64; scores; K-th score.

    With a ``precision`` the scores are lower bounds. The third value is infinite if all pairs were taken.
    """
    points, best, limit = clusters.points(precision), _Shortlist(num_pairs), torch.inf
    for first, start, block in clusters.linkage_blocks(points):
        if start == first:  # from here on, a pair that ties with an earlier one has larger labels
            limit = best.limit
        share_a, share_b = shares[first : first + len(block)], shares[start : start + block.shape[1]]
        # Most pairs are too far even with the smallest share: one comparison finds them, with a margin for rounding.
        room = limit - share_a - share_b.min()
        room = room.clamp_min(0).square() if clusters.root_last else room
        a, b = (block <= (room * (1 + 2**-20) + points.slack).to(block.dtype)[:, None]).nonzero(as_tuple=True)
        linkage = (block[a, b].double() - points.slack).clamp_min_(0)
        linkage = linkage.sqrt_() if clusters.root_last else linkage
        scores = criteria.dissimilarity(linkage, share_a[a], share_b[b])
        near = (scores < limit).nonzero()[:, 0]
        best.add(scores[near], ((first + a) * len(clusters) + start + b)[near])
    return best.cut()


class _Shortlist:
    """The best of the added pairs, by score and then by label; cut only occasionally, because a cut needs a sort."""

    def __init__(self, size: int):
        """Keep ``size`` pairs."""
        self.size, self.held, self.limit = size, 0, torch.inf  # limit: the worst score of a full list at the last cut
        self.scores, self.pairs = [], []

    def add(self, scores: Tensor, pairs: Tensor) -> None:
        """Add pairs ``a * C + b`` (K,) and their scores (K,) float64."""
        self.scores.append(scores)
        self.pairs.append(pairs)
        self.held += len(pairs)
        if self.held > 2 * self.size:
            self.cut()

    def cut(self) -> tuple[Tensor, Tensor, float]:
        """Keep only the best pairs; return them in order (K,), their scores (K,) and the limit."""
        pairs, order = torch.cat(self.pairs).sort()
        scores = torch.cat(self.scores)[order]
        order = _ascending(scores)[: self.size]
        self.scores, self.pairs, self.held = [scores[order]], [pairs[order]], len(order)
        if self.held == self.size:
            self.limit = float(self.scores[0].max())
        return self.pairs[0], self.scores[0], self.limit


def _ascending(scores: Tensor) -> Tensor:
    """Return the order that sorts scores: (K,) -> (K,) int64. Scores that differ only by rounding keep their order."""
    values, order = scores.sort()
    group = torch.zeros_like(order)
    group[order[1:]] = torch.cumsum(values.diff() > criteria.ROUNDING, 0)
    return group.sort(stable=True).indices
