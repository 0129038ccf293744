"""Clusters under a criterion: the share that each adds to a score, and the linkages of all pairs, block by block."""

import bisect
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.merging import products
from reprolib.merging.products import Points
from reprolib.recipe import Criterion

# Limits for the rows and bytes of a block: on a CPU about the size of the last-level cache, on CUDA large enough that
# launching a kernel takes little time compared with its work.
BLOCK, BLOCK_BYTES = 512, 2**24
CUDA_BLOCK, CUDA_BLOCK_BYTES = 2048, 2**30


class Clusters:
    """The images sorted by label, with the shares of clusters and the linkages of pairs under a criterion."""

    def __init__(self, images: Tensor, sizes: Tensor, criterion: Criterion):
        """Take ``images`` (N, d) and ``sizes`` (C,): the first ``sizes[0]`` images are cluster 0, and so on."""
        self.images, self.sizes, self.criterion = images, sizes, criterion
        self.starts = sizes.cumsum(0) - sizes  # (C,) first image of each cluster
        self.owner = torch.repeat_interleave(sizes)  # (N,) cluster of each image
        on_cuda = images.device.type == "cuda"
        self.rows, self.bytes = (CUDA_BLOCK, CUDA_BLOCK_BYTES) if on_cuda else (BLOCK, BLOCK_BYTES)
        lengths = [torch.linalg.vector_norm(some.double(), dim=1) for some in images.split(self.rows)]
        self.norms = torch.cat(lengths).square()  # (N,) float64
        self.own_linkage = callable(criterion.linkage)  # a function of the user, called for every pair
        if self.own_linkage:
            criteria.require_linkage(criterion.linkage, images)
        # The mean of roots is not the root of the mean: the average linkage takes roots before averaging. The other
        # linkages take the root of their result.
        self.root_first = criterion.distance == "euclidean" and criterion.linkage == "average"
        self.root_last = criterion.distance == "euclidean" and not (self.own_linkage or self.root_first)
        self.by_means = criterion.linkage == "centroid" or (criterion.linkage == "average" and not self.root_first)

    def __len__(self) -> int:
        """Number of clusters, C."""
        return len(self.sizes)

    def members(self, some: Tensor, size: int) -> Tensor:
        """Return the images of clusters that all have ``size`` images: (K,) -> (K, size, d)."""
        return self.images[self.starts[some, None] + torch.arange(size, device=some.device)]

    def shares(self) -> Tensor:
        """Return λ times the size or dispersion of each cluster: (C,) float64."""
        n = self.sizes.double()
        own = criteria.size(n) if self.criterion.regularizer == "size" else torch.zeros_like(n)
        if self.criterion.regularizer == "dispersion":
            several = (self.sizes > 1).nonzero()[:, 0]
            for some, (size, _) in self._alike(self.sizes[several], self.sizes[several]):
                images = self.members(several[some], size)
                for rows in images.split(max(1, self.bytes // (8 * size)), dim=1):
                    own[several[some]] += criteria.pair_distances(rows, images, self.criterion.distance).sum((-2, -1))
            own = criteria.dispersion(own, n, self.criterion.dispersion)
        return self.criterion.regularizer_weight * own

    def linkages(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the linkages of pairs of clusters from their definition: (K,), (K,) -> (K,) float64."""
        linkage, found = self.criterion.linkage, self.norms.new_empty(len(a))
        linkage = linkage if self.own_linkage else criteria.LINKAGES[linkage]
        for some, (n_a, n_b) in self._alike(self.sizes[a], self.sizes[b]):
            images = self.members(a[some], n_a), self.members(b[some], n_b)
            found[some] = linkage(*images, self.criterion.distance).to(found.dtype)
        if self.own_linkage:
            if not ((found > -1e-6) & found.isfinite()).all():  # the rounding error of float32
                raise ValueError(
                    f"linkage {linkage.__name__} must return finite values that are not negative, for any two clusters"
                )
            found.clamp_min_(0)
        return found

    def _alike(self, n_a: Tensor, n_b: Tensor) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Yield groups of indices with equal ``n_a`` and equal ``n_b``, at most one block each, and these two sizes."""
        base = len(self.images) + 1
        pairs, which, counts = torch.unique(n_a * base + n_b, return_inverse=True, return_counts=True)
        for pair, group in zip(pairs.tolist(), which.argsort().split(counts.tolist()), strict=True):
            a, b = divmod(pair, base)
            for some in group.split(max(1, self.bytes // (8 * (self.images.shape[1] * (a + b) + a * b)))):
                yield some, (a, b)

    def points(self, precision: str | None = None) -> Points:
        """Return the points to multiply, in float64 or with ``BITS[precision]`` bits: images, or means if ``by_means``.

        Mean features are sufficient for the centroid linkage. With the mean squared norm as the base they are also
        sufficient for the average of squared distances, since mean‖x − y‖² = mean‖x‖² + mean‖y‖² − 2 μ_a·μ_b.
        """
        values, base = self.images, self.norms
        if self.by_means and len(self) < len(self.images):
            values = self.norms.new_zeros(len(self), self.images.shape[1])
            for some, owner in zip(self.images.split(self.rows), self.owner.split(self.rows), strict=True):
                values.index_add_(0, owner, some.double())
            values /= self.sizes[:, None]
            base = values.square().sum(1)
            if self.criterion.linkage == "average":
                base = torch.zeros_like(base).index_add_(0, self.owner, self.norms) / self.sizes
        if precision is None:
            return products.Points(values.double(), base, "ieee", slack=0.0)
        return products.screening(values, base, precision, float(self.norms.max()))

    def linkage_blocks(self, points: Points) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``first, start, block``: linkages of clusters first, first + 1, … (rows) with start, … (columns).

        Blocks with the same ``first`` follow each other, from ``start = first`` to the last cluster. Each pair appears
        once: entries on and below the diagonal are infinite. The entries are squared if ``root_last``. They may be off
        by ``points.slack``; if ``root_first`` the slack is subtracted before taking roots, so that only the roots and
        sums are rounded. The next block overwrites the current one.
        """
        if self.own_linkage:
            yield from self._defined_blocks()
            return
        counts = [1] * len(self) if len(points) == len(self) else self.sizes.tolist()
        ends, largest, itemsize = [0, *itertools.accumulate(counts)], max(counts), points.values.element_size()
        height = max(1, min(self.rows, self.bytes // (itemsize * largest)))
        width = max(largest, self.bytes // (itemsize * height))
        # On a CPU the product takes 1.5 times as long if the rows of its result do not start at multiples of 64 bytes.
        buffer = points.values.new_empty(height, -(-min(width, len(points)) // 16) * 16)

        def distances(rows: slice, columns: slice) -> Tensor:
            out = buffer[: rows.stop - rows.start, : columns.stop - columns.start]
            square = points.distances(rows, columns, out)
            square = square.sub_(points.slack).clamp_min_(0) if self.root_first and points.slack else square
            return square.sqrt_() if self.root_first else square

        for first, last in _rows(ends, height):
            spans = [slice(k, min(k + height, ends[last])) for k in range(ends[first], ends[last], height)]
            for start, stop in _groups(ends, first, width):
                parts = (distances(rows, slice(ends[start], ends[stop])) for rows in spans)
                block = next(parts) if len(points) == len(self) else self._link(parts, first, last, start, stop)
                index = torch.arange(first, last, device=block.device)
                both = index[start - first : stop - first]  # clusters that are both rows and columns
                block[:, : len(both)].masked_fill_(index[:, None] >= both, torch.inf)
                yield first, start, block

    def _defined_blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield the same as ``linkage_blocks``, computed from the definition pair by pair."""
        everyone = torch.arange(len(self), device=self.sizes.device)
        for rows in everyone.split(max(1, self.bytes // (8 * len(self)))):
            first = int(rows[0])
            block = self.norms.new_full((len(rows), len(self) - first), torch.inf)
            a, b = (rows[:, None] < everyone[first:]).nonzero(as_tuple=True)
            block[a, b] = self.linkages(first + a, first + b)
            yield first, first, block

    def _link(self, parts: Iterator[Tensor], first: int, last: int, start: int, stop: int) -> Tensor:
        """Reduce distances between images to linkages of clusters first … last − 1 with start … stop − 1.

        There is more than one part only if the rows are a single cluster.
        """
        how = {"minimum": "amin", "maximum": "amax", "average": "sum"}[self.criterion.linkage]
        rows, columns = torch.repeat_interleave(self.sizes[first:last]), torch.repeat_interleave(self.sizes[start:stop])
        parts = [_reduce(part, rows[: len(part)], last - first, how) for part in parts]
        block = getattr(torch.stack(parts), how)(0) if len(parts) > 1 else parts[0]
        block = _reduce(block.T, columns, stop - start, how).T
        return block / (self.sizes[first:last, None] * self.sizes[start:stop]) if how == "sum" else block


def _groups(ends: list[int], first: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield ``first, last``: consecutive clusters of at most ``limit`` points in total, or a single larger cluster."""
    while first < len(ends) - 1:
        last = max(first + 1, bisect.bisect_right(ends, ends[first] + limit) - 1)
        yield first, last
        first = last


def _rows(ends: list[int], height: int) -> Iterator[tuple[int, int]]:
    """Yield ``_groups`` for the rows of blocks, small blocks first.

    The first blocks give the search for the closest pairs an early bound on the distance.
    """
    first, rows = 0, -(-height // 64)
    while first < len(ends) - 1:
        first, last = next(_groups(ends, first, rows))
        yield first, last
        first, rows = last, min(4 * rows, height)


def _reduce(values: Tensor, owner: Tensor, count: int, how: str) -> Tensor:
    """Reduce the rows of each owner to one row: (R, K), (R,) -> (count, K)."""
    out = values.new_zeros(count, values.shape[1])
    return out.scatter_reduce_(0, owner[:, None].expand_as(values), values.contiguous(), how, include_self=False)
