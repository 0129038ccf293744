"""Merging with the pairs ranked again after every merge: DBC Algorithm 1.

As in ``ranked_once``, a faster product (here always float32) gives lower bounds of the linkages if there are many
clusters, and the few pairs that may be the best are scored by their definition. The linkage of the two merging clusters
is exact. The update of a linkage then increases with both linkages that it combines, so that bounds remain bounds.
"""

from contextlib import suppress

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.merging.clusters import Clusters

# Up to this many clusters the matrix is float64 (128 MiB, 2 GiB); above, it has the precision of the features. On a GPU
# scoring pairs one by one is expected to take longer than the product in float64 (not measured).
DOUBLE_UP_TO = {"cpu": 4096, "cuda": 16_384}
# Cost on a CPU of scoring a pair on its own, and of each image and distance of the pair, in entries of a float64
# product.
PAIR_COST, IMAGE_COST = 2048, 64


def merge_ranked_again(clusters: Clusters, merges: int) -> list[int]:
    """Return the label in which each of the C clusters ends up; the smaller label survives a merge."""
    if len(clusters) > _double_up_to(clusters) and clusters.images.dtype == torch.float32:
        with suppress(_Undecided):
            return _merge(_Matrix(clusters, bounds=True), merges)
    return _merge(_Matrix(clusters, bounds=False), merges)


def _double_up_to(clusters: Clusters) -> int:
    return DOUBLE_UP_TO.get(clusters.images.device.type, DOUBLE_UP_TO["cpu"])


def _merge(matrix: "_Matrix", merges: int) -> list[int]:
    survivor = list(range(len(matrix.united)))
    for _ in range(merges):
        matrix.merge_closest()
    for label, united in enumerate(matrix.united):
        for cluster in united:
            survivor[cluster] = label
    return survivor


class _Undecided(Exception):
    """The bounds leave too many pairs to score one by one, or turn out not to be bounds."""


class _Matrix:
    """Linkages of all pairs (C, C), updated after each merge, with the best pair of every row.

    Only entries above the diagonal are used: row a holds the pairs with b > a. A merge costs O(C), plus O(C) for each
    row that must be searched. A row whose best pair contained one of the merged clusters is stale: it is searched again
    when its turn comes, and until then its previous best score is a lower bound for its pairs. If the entries are
    bounds, every row has only such a lower bound before its turn, and its partner has no meaning.
    """

    def __init__(self, clusters: Clusters, *, bounds: bool):
        """Fill the matrix with linkages from float64 products, or with their lower bounds from float32 products."""
        self.clusters, self.sizes, self.bounds = clusters, clusters.sizes.tolist(), bounds
        self.images = clusters.images.split(self.sizes)  # images of each initial cluster
        self.united = [[c] for c in range(len(clusters))]  # initial clusters that each current cluster consists of
        dtype = torch.float64 if len(clusters) <= _double_up_to(clusters) else clusters.images.dtype
        self.linkages = clusters.images.new_empty(len(clusters), len(clusters), dtype=dtype)
        self.shares = clusters.shares().to(torch.float64 if bounds else dtype)  # infinite after a cluster was absorbed
        self.best, self.partner = torch.empty_like(self.shares), torch.zeros_like(clusters.sizes)
        self.stale = torch.zeros_like(clusters.sizes, dtype=torch.bool)  # rows whose best score is only a bound
        points = clusters.points("ieee" if bounds else None)
        self.budget = len(points) ** 2 / 2  # what scoring single pairs may still cost, in entries of a float64 product
        self.floor = 1 - 2**-19 if bounds else 1  # this factor outweighs rounding up in a few float32 operations
        # Sums of roots are rounded more often.
        shrink = self.floor - 2 * max(self.sizes) * 2**-23 if clusters.root_first else self.floor
        for first, start, block in clusters.linkage_blocks(points):  # infinite below the diagonal
            last, end = first + len(block), start + block.shape[1]
            if bounds:
                block = block if clusters.root_first else block.sub_(points.slack).clamp_min_(0)
                block.mul_(shrink)
            self.linkages[first:last, start:end] = block
            if end == len(clusters):
                self.search(first, last)

    def scores(self, linkages: Tensor, share_a: Tensor, share_b: Tensor) -> Tensor:
        """Return the scores of entries of the matrix."""
        linkages = linkages.sqrt() if self.clusters.root_last else linkages
        return criteria.dissimilarity(linkages, share_a, share_b)

    def search(self, first: int, last: int) -> None:
        """Find the best pair of each row, for ties the smallest b; if the entries are bounds, only its lower bound."""
        shares = self.shares[first:].to(self.linkages.dtype)
        scores = self.scores(self.linkages[first:last, first:], shares[: last - first, None], shares)
        self.best[first:last] = scores.amin(1) * self.floor
        self.stale[first:last] = self.bounds
        if not self.bounds:
            self.partner[first:last] = first + _first_lowest(scores)

    def settle(self, a: int) -> None:
        """Replace the lower bound of a row by its best pair, by scoring every pair that may be the best."""
        bounds = self.scores(self.linkages[a, a:].double(), self.shares[a], self.shares[a:])
        lowest = int(_first_lowest(bounds[None]))
        near = bounds.new_tensor([lowest], dtype=torch.int64)
        scores = self.exact(a, near)
        if scores[0] > bounds[lowest] + criteria.ROUNDING:
            near = (bounds <= scores[0] + criteria.ROUNDING).nonzero()[:, 0]
            scores = self.exact(a, near) if len(near) > 1 else scores
        if (scores < bounds[near] - criteria.ROUNDING).any():
            raise _Undecided  # the product is less precise than it should be
        self.best[a], self.partner[a], self.stale[a] = scores.amin(), a + near[_first_lowest(scores[None])], False

    def exact(self, a: int, columns: Tensor) -> Tensor:
        """Score a with each of a + ``columns`` (K,) by the definition: (K,) float64."""
        others, n_a = a + columns, self.sizes[a]
        for n_b in (self.sizes[b] for b in others.tolist()):
            self.budget -= PAIR_COST + IMAGE_COST * (n_a * n_b + n_a + n_b)
        if self.budget < 0:
            raise _Undecided
        # The diagonal is the best entry of a row only if no partner is left.
        linkages = [self.linkage(a, b) if b > a else torch.inf for b in others.tolist()]
        return self.scores(self.best.new_tensor(linkages), self.shares[a], self.shares[others])

    def linkage(self, a: int, b: int) -> float:
        """Return the exact value of an entry of the matrix."""
        c = self.clusters.criterion
        distance = "squared" if self.clusters.root_last else c.distance
        return float(criteria.LINKAGES[c.linkage](*self.both(a, b), distance))

    def both(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """Return the images of two clusters."""
        return tuple(torch.cat([self.images[c] for c in self.united[q]]) for q in (a, b))

    def merge_closest(self) -> None:
        """Merge the best pair, a with b > a; for ties the first one."""
        while self.stale[a := int(_first_lowest(self.best[None]))]:
            if self.bounds:
                self.settle(a)
            else:
                self.search(a, a + 1)
        b = int(self.partner[a])
        # The entries of a cluster are in its column down to the diagonal, which is infinite, and then in its row.
        row_a, row_b = (torch.cat([self.linkages[:k, k], self.linkages[k, k:]]).double() for k in (a, b))
        row = self.unite(a, b, row_a, row_b).mul_(self.floor).to(self.linkages.dtype)
        self.linkages[:a, a], self.linkages[a, a + 1 :] = row[:a], row[a + 1 :]
        self.stale |= (self.partner == a) | (self.partner == b)
        best, partner = self.best[:a], self.partner[:a]  # rows for which a ∪ b may be the new best partner
        scores = self.scores(row[:a], self.shares[:a], self.shares[a])
        better = (scores < best - criteria.ROUNDING) | ((scores <= best + criteria.ROUNDING) & (a < partner))
        best[better], partner[better], self.stale[:a][better] = scores[better], a, self.bounds
        self.best[b], self.stale[b] = torch.inf, False
        self.search(a, a + 1)

    def unite(self, a: int, b: int, d_as: Tensor, d_bs: Tensor) -> Tensor:
        """Replace a by a ∪ b and remove b, except in the matrix; return the linkages of a ∪ b, (C,)."""
        c, n_a, n_b = self.clusters.criterion, self.sizes[a], self.sizes[b]
        d_ab = self.linkage(a, b) if self.bounds else d_as[b]
        if c.regularizer == "size":
            self.shares[a] = c.regularizer_weight * criteria.size(n_a + n_b)
        elif c.regularizer == "dispersion":
            self.shares[a] = self.dispersion_share(a, b, d_ab)
        self.shares[b] = torch.inf
        self.united[a], self.united[b], self.sizes[a] = self.united[a] + self.united[b], [], n_a + n_b
        return criteria.LINKAGE_UPDATES[c.linkage](d_as, d_bs, d_ab, n_a, n_b).clamp_min_(0)

    def dispersion_share(self, a: int, b: int, d_ab: Tensor | float) -> Tensor:
        """Return λ times the dispersion of a ∪ b, by DBC Eq. (7) or by the definition."""
        c = self.clusters.criterion
        if c.linkage != "average":  # d_ab is always that of DBC Eq. (4)
            d_ab = criteria.average(*self.both(a, b), c.distance)
        update = criteria.DISPERSION_UPDATES["eq7" if c.dispersion_update == "eq7" else c.dispersion]
        # The update is linear in its distances, so λ times the distances give λ times the dispersion.
        return update(self.shares[a], self.shares[b], c.regularizer_weight * d_ab, self.sizes[a], self.sizes[b])


def _first_lowest(scores: Tensor) -> Tensor:
    """Return the position of the lowest score in each row, for ties the first one: (R, K) -> (R,) int64."""
    return (scores <= scores.amin(1, keepdim=True) + criteria.ROUNDING).byte().argmax(1)
