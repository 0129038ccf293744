"""Pairs ranked again after every merge: DBC Algorithm 1.

As in ``ranked_once`` a quicker product, here always float32's, bounds the linkages of many clusters from below, and the
few pairs that may be the best are scored by their definition. With the exact linkage of the two that merge, the update
of a linkage rises with each of the two that it is made of, so that bounds stay bounds.
"""

from contextlib import suppress

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.merging.clusters import Clusters

# Clusters up to which the matrix is float64 (128 MiB, 2 GiB); above, it has the features' precision. To score pairs one
# by one is expected to take a GPU longer than the product in float64 (not measured).
DOUBLE_UP_TO = {"cpu": 4096, "cuda": 16_384}
# Entries of a float64 product that cost as much, on a CPU, as a pair scored on its own, and as each image and distance
# that it takes.
PAIR_COST, IMAGE_COST = 2048, 64


def merge_ranked_again(clusters: Clusters, merges: int) -> list[int]:
    """The label that each cluster ends with, the smaller surviving: C labels."""
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
    """Bounds leave too many pairs to be scored one by one, or turn out not to be bounds."""


class _Matrix:
    """Linkages of all pairs (C, C), updated merge by merge, with the best pair of every row kept.

    Only what is above the diagonal is ever touched: row a holds the pairs with b > a. A merge costs O(C), and as much
    for each row that has to be searched. A row that had its best pair with one of the two is searched again when its
    turn comes: until then its former best score is a bound that none of its pairs is below. If the entries are bounds,
    that is all that is known of any row before its turn, and its partner means nothing.
    """

    def __init__(self, clusters: Clusters, *, bounds: bool):
        """Fill the matrix with linkages from float64 blocks, or with lower bounds of them from float32 products."""
        self.clusters, self.sizes, self.bounds = clusters, clusters.sizes.tolist(), bounds
        self.images = clusters.images.split(self.sizes)  # of each cluster at the start
        self.united = [[c] for c in range(len(clusters))]  # of which of these each consists by now
        dtype = torch.float64 if len(clusters) <= _double_up_to(clusters) else clusters.images.dtype
        self.linkages = clusters.images.new_empty(len(clusters), len(clusters), dtype=dtype)
        self.shares = clusters.shares().to(torch.float64 if bounds else dtype)  # infinite once a cluster was absorbed
        self.best, self.partner = torch.empty_like(self.shares), torch.zeros_like(clusters.sizes)
        self.stale = torch.zeros_like(clusters.sizes, dtype=torch.bool)  # rows whose best score is a bound
        points = clusters.points("ieee" if bounds else None)
        self.left = len(points) ** 2 / 2  # what scores of single pairs may yet cost, in entries of a float64 product
        self.floor = 1 - 2**-19 if bounds else 1  # times this, a few float32 operations cannot have rounded upwards
        floor = (
            self.floor - 2 * max(self.sizes) * 2**-23 if clusters.root_first else self.floor
        )  # nor the sums of roots
        for first, start, block in clusters.linkage_blocks(points):  # infinite under the diagonal
            last, end = first + len(block), start + block.shape[1]
            if bounds:
                block = block if clusters.root_first else block.sub_(points.slack).clamp_min_(0)
                block.mul_(floor)
            self.linkages[first:last, start:end] = block
            if end == len(clusters):
                self.search(first, last)

    def scores(self, linkages: Tensor, share_a: Tensor, share_b: Tensor) -> Tensor:
        """Scores of entries of the matrix."""
        linkages = linkages.sqrt() if self.clusters.root_last else linkages
        return criteria.dissimilarity(linkages, share_a, share_b)

    def search(self, first: int, last: int) -> None:
        """Find the best pair of each of these rows, among equals that with the smallest b; or what none is below."""
        shares = self.shares[first:].to(self.linkages.dtype)
        scores = self.scores(self.linkages[first:last, first:], shares[: last - first, None], shares)
        self.best[first:last] = scores.amin(1) * self.floor
        self.stale[first:last] = self.bounds
        if not self.bounds:
            self.partner[first:last] = first + _first_lowest(scores)

    def score(self, a: int) -> None:
        """Find the best pair of a row from bounds, by scoring all that may be it."""
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
        """Scores of a with a + ``columns`` (K,), by definition: (K,) float64."""
        others, n_a = a + columns, self.sizes[a]
        for n_b in (self.sizes[b] for b in others.tolist()):
            self.left -= PAIR_COST + IMAGE_COST * (n_a * n_b + n_a + n_b)
        if self.left < 0:
            raise _Undecided
        # The diagonal is the best of a row only when none of its partners is left.
        linkages = [self.linkage(a, b) if b > a else torch.inf for b in others.tolist()]
        return self.scores(self.best.new_tensor(linkages), self.shares[a], self.shares[others])

    def linkage(self, a: int, b: int) -> float:
        """What the matrix would hold if it were exact."""
        c = self.clusters.criterion
        distance = "squared" if self.clusters.root_last else c.distance
        return float(criteria.LINKAGES[c.linkage](*self.both(a, b), distance))

    def both(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """The images of two clusters."""
        return tuple(torch.cat([self.images[c] for c in self.united[q]]) for q in (a, b))

    def merge_closest(self) -> None:
        """Merge the best pair, a with b > a, the first among equals."""
        while self.stale[a := int(_first_lowest(self.best[None]))]:
            self.score(a) if self.bounds else self.search(a, a + 1)
        b = int(self.partner[a])
        # A row ends in the diagonal, which is infinite, and goes on in the column.
        row_a, row_b = (torch.cat([self.linkages[:k, k], self.linkages[k, k:]]).double() for k in (a, b))
        row = self.unite(a, b, row_a, row_b).mul_(self.floor).to(self.linkages.dtype)
        self.linkages[:a, a], self.linkages[a, a + 1 :] = row[:a], row[a + 1 :]
        self.stale |= (self.partner == a) | (self.partner == b)
        best, partner = self.best[:a], self.partner[:a]  # of the rows that a ∪ b may be the new best partner for
        scores = self.scores(row[:a], self.shares[:a], self.shares[a])
        better = (scores < best - criteria.ROUNDING) | ((scores <= best + criteria.ROUNDING) & (a < partner))
        best[better], partner[better], self.stale[:a][better] = scores[better], a, self.bounds
        self.best[b], self.stale[b] = torch.inf, False
        self.search(a, a + 1)

    def unite(self, a: int, b: int, d_as: Tensor, d_bs: Tensor) -> Tensor:
        """Let a become a ∪ b and b be gone, all but in the matrix; returns the linkages of a ∪ b, (C,)."""
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
        """λ times the dispersion of a ∪ b, by DBC Eq. (7) or by the definition."""
        c = self.clusters.criterion
        if c.linkage != "average":  # d_ab is that of DBC Eq. (4) whatever the linkage
            d_ab = criteria.average(*self.both(a, b), c.distance)
        update = criteria.DISPERSION_UPDATES["eq7" if c.dispersion_update == "eq7" else c.dispersion]
        # Linear in its distances, so λ times distances give λ times the dispersion.
        return update(self.shares[a], self.shares[b], c.regularizer_weight * d_ab, self.sizes[a], self.sizes[b])


def _first_lowest(scores: Tensor) -> Tensor:
    """Where each row has its lowest score, the first of those that tie: (R, K) -> (R,) int64."""
    return (scores <= scores.amin(1, keepdim=True) + criteria.ROUNDING).byte().argmax(1)
