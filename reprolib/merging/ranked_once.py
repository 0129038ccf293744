"""Pairs ranked once a stage, as both released programs do it.

Nearly all of the cost is the product of all features with all features. It is taken once for each pair, in the
features' own precision, and serves only to bound the scores from below; the few pairs that may merge are scored again.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.merging.clusters import Clusters

PAIRS_PER_MERGE = 64  # how far down the ranking is looked at first; late stages rank many pairs within one cluster
PAIR_COST = 64  # entries of a float64 product that cost as much as one distance, or one image, of a pair on its own


def merge_ranked_once(clusters: Clusters, merges: int) -> list[int]:
    """The label that each cluster ends with, the smaller surviving: C labels."""
    rankings = _rankings(clusters, merges)
    results = (_unite(pairs.tolist(), len(clusters), merges, clusters.criterion.absorbed) for pairs in rankings)
    return next(filter(None, results))  # every merge is in the ranking of all pairs, at the latest


def _unite(pairs: list[int], num_clusters: int, merges: int, absorbed: str) -> list[int] | None:
    """Merge down the pairs ``a * C + b``; None if they run out before there are ``merges`` merges.

    "follow": a pair stands for the clusters that its two are part of by now (Kruskal's algorithm, chains allowed).
    "skip": a pair is passed over if either of its two was absorbed.
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
    if clusters.images.dtype == torch.float32 and not clusters.root_first:
        yield from _rankings_from_bounds(clusters, shares, merges)
    while True:
        yield _closest_pairs(clusters, shares, num_pairs, torch.float64)[0]
        num_pairs *= 16


def _rankings_from_bounds(clusters: Clusters, shares: Tensor, merges: int) -> Iterator[Tensor]:
    """What float32 and the exact scores of a few pairs tell of the ranking: exact, but it may end too soon."""
    pairs, bounds, beyond = _closest_pairs(clusters, shares, PAIRS_PER_MERGE * merges, torch.float32)
    product = (len(clusters) if clusters.by_means else len(clusters.images)) ** 2 / 2
    for count in sorted({min(growth * merges, len(pairs)) for growth in (2, 8, 32, PAIRS_PER_MERGE)}):
        some, a, b = pairs[:count], pairs[:count] // len(clusters), pairs[:count] % len(clusters)
        n_a, n_b = clusters.sizes[a], clusters.sizes[b]
        if PAIR_COST * int((n_a * n_b + n_a + n_b).sum()) > product:
            return  # the whole product in float64 takes less time
        scores = criteria.dissimilarity(clusters.linkages(a, b), shares[a], shares[b])
        if (scores < bounds[:count] - criteria.ROUNDING).any():
            return  # no bounds: this process allows TF32 or bfloat16 in products
        reach = float(bounds[count]) if count < len(pairs) else beyond  # no other pair scores less
        sure = scores < reach - criteria.ROUNDING
        some, order = some[sure].sort()
        yield some[_ascending(scores[sure][order])]


def _closest_pairs(
    clusters: Clusters, shares: Tensor, num_pairs: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, float]:
    """The ``num_pairs`` pairs of lowest score, ties by label, in order, (K,) int64; their scores; and the K-th score.

    In float32 scores are lower bounds. The third value is infinite if all pairs were taken.
    """
    slack = 0.0 if dtype == torch.float64 else clusters.slack()
    scores, pairs, limit = shares.new_empty(0), clusters.sizes.new_empty(0), torch.inf
    for first, block in clusters.linkage_blocks(dtype):
        # Most pairs are too far even with the smallest share: one comparison, with some room for its own rounding.
        room = limit - shares[first : first + len(block)] - shares[first:].min()
        room = room.clamp_min(0).square() if clusters.root_last else room
        a, b = (block <= (room * (1 + 2**-20) + slack).to(dtype)[:, None]).nonzero(as_tuple=True)
        linkage = (block[a, b].double() - slack).clamp_min_(0)
        linkage = linkage.sqrt_() if clusters.root_last else linkage
        a, b = first + a, first + b
        found = criteria.dissimilarity(linkage, shares[a], shares[b])
        near = found < limit
        # Pairs come in ascending order of their labels, so ties stay in that order.
        scores = torch.cat([scores, found[near]])
        order = _ascending(scores)[:num_pairs]
        scores, pairs = scores[order], torch.cat([pairs, (a * len(clusters) + b)[near]])[order]
        limit = float(scores.max()) if len(scores) == num_pairs else torch.inf
    return pairs, scores, limit


def _ascending(scores: Tensor) -> Tensor:
    """The order that sorts scores: (K,) -> (K,) int64. Those that differ by rounding alone stay in the order given."""
    values, order = scores.sort()
    group = torch.zeros_like(order)
    group[order[1:]] = torch.cumsum(values.diff() > criteria.ROUNDING, 0)
    return group.sort(stable=True).indices
