"""Pairs ranked again after every merge: DBC Algorithm 1."""

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.merging.clusters import Clusters

DOUBLE_UP_TO = 4096  # clusters; the matrix is float64 up to here (128 MiB) and in the features' precision above


def merge_ranked_again(clusters: Clusters, merges: int) -> list[int]:
    """The label that each cluster ends with, the smaller surviving: C labels."""
    matrix, survivor = _Matrix(clusters), list(range(len(clusters)))
    for _ in range(merges):
        matrix.merge_closest()
    for label, united in enumerate(matrix.united):
        for cluster in united:
            survivor[cluster] = label
    return survivor


class _Matrix:
    """Linkages of all pairs (C, C), updated merge by merge, with the best pair of every row kept.

    Only what is above the diagonal is ever touched: row a holds the pairs with b > a. A merge costs O(C). A row that
    had its best pair with one of the two is searched again when its turn comes: until then its former best score is a
    bound that none of its pairs is below.
    """

    def __init__(self, clusters: Clusters):
        """Fill the matrix from float64 blocks."""
        self.clusters, self.sizes = clusters, clusters.sizes.tolist()
        self.united = [[c] for c in range(len(clusters))]  # of which clusters at the start each consists by now
        dtype = torch.float64 if len(clusters) <= DOUBLE_UP_TO else clusters.images.dtype
        self.linkages = clusters.images.new_empty(len(clusters), len(clusters), dtype=dtype)
        self.shares = clusters.shares().to(dtype)  # infinite once a cluster was absorbed
        self.best, self.partner = torch.empty_like(self.shares), torch.empty_like(clusters.sizes)
        self.stale = torch.zeros_like(clusters.sizes, dtype=torch.bool)  # rows whose best score is a bound
        for first, start, block in clusters.linkage_blocks(clusters.points()):  # infinite under the diagonal
            last, end = first + len(block), start + block.shape[1]
            self.linkages[first:last, start:end] = block
            if end == len(clusters):
                self.search(first, last)

    def scores(self, linkages: Tensor, share_a: Tensor, share_b: Tensor) -> Tensor:
        """Scores of entries of the matrix."""
        linkages = linkages.sqrt() if self.clusters.root_last else linkages
        return criteria.dissimilarity(linkages, share_a, share_b)

    def search(self, first: int, last: int) -> None:
        """Find the best pair of each of these rows; among equals that with the smallest b."""
        scores = self.scores(self.linkages[first:last, first:], self.shares[first:last, None], self.shares[first:])
        self.best[first:last] = scores.amin(1)
        self.partner[first:last] = first + _first_lowest(scores)
        self.stale[first:last] = False

    def merge_closest(self) -> None:
        """Merge the best pair, a with b > a, the first among equals."""
        while self.stale[a := int(_first_lowest(self.best[None]))]:
            self.search(a, a + 1)
        b = int(self.partner[a])
        # A row ends in the diagonal, which is infinite, and goes on in the column.
        row_a, row_b = (torch.cat([self.linkages[:k, k], self.linkages[k, k:]]).double() for k in (a, b))
        row = self.unite(a, b, row_a, row_b).to(self.linkages.dtype)
        self.linkages[:a, a], self.linkages[a, a + 1 :] = row[:a], row[a + 1 :]
        self.stale |= (self.partner == a) | (self.partner == b)
        best, partner = self.best[:a], self.partner[:a]  # of the rows that a ∪ b may be the new best partner for
        scores = self.scores(row[:a], self.shares[:a], self.shares[a])
        better = (scores < best - criteria.ROUNDING) | ((scores <= best + criteria.ROUNDING) & (a < partner))
        best[better], partner[better], self.stale[:a][better] = scores[better], a, False
        self.best[b], self.stale[b] = torch.inf, False
        self.search(a, a + 1)

    def unite(self, a: int, b: int, d_as: Tensor, d_bs: Tensor) -> Tensor:
        """Let a become a ∪ b and b be gone, all but in the matrix; returns the linkages of a ∪ b, (C,)."""
        c, n_a, n_b, d_ab = self.clusters.criterion, self.sizes[a], self.sizes[b], d_as[b]
        if c.regularizer == "size":
            self.shares[a] = c.regularizer_weight * criteria.size(n_a + n_b)
        elif c.regularizer == "dispersion":
            self.shares[a] = self.dispersion_share(a, b, d_ab)
        self.shares[b] = torch.inf
        self.united[a], self.united[b], self.sizes[a] = self.united[a] + self.united[b], [], n_a + n_b
        return criteria.LINKAGE_UPDATES[c.linkage](d_as, d_bs, d_ab, n_a, n_b).clamp_min_(0)

    def dispersion_share(self, a: int, b: int, d_ab: Tensor) -> Tensor:
        """λ times the dispersion of a ∪ b, by DBC Eq. (7) or by the definition."""
        c = self.clusters.criterion
        if c.linkage != "average":  # d_ab is that of DBC Eq. (4) whatever the linkage
            united = (torch.tensor(self.united[q], device=d_ab.device) for q in (a, b))
            images = (self.clusters.images[torch.isin(self.clusters.owner, some)] for some in united)
            d_ab = criteria.average(*images, c.distance)
        update = criteria.DISPERSION_UPDATES["eq7" if c.dispersion_update == "eq7" else c.dispersion]
        # Linear in its distances, so λ times distances give λ times the dispersion.
        return update(self.shares[a], self.shares[b], c.regularizer_weight * d_ab, self.sizes[a], self.sizes[b])


def _first_lowest(scores: Tensor) -> Tensor:
    """Where each row has its lowest score, the first of those that tie: (R, K) -> (R,) int64."""
    return (scores <= scores.amin(1, keepdim=True) + criteria.ROUNDING).byte().argmax(1)
