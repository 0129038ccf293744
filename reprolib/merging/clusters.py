"""Clusters under a criterion: what each adds to a score, and the linkages of all pairs, block by block."""

import bisect
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import threshold_

from reprolib import criteria
from reprolib.recipe import Criterion

BLOCK = 512  # images whose distances to all others are taken at a time, or fewer so that
BLOCK_BYTES = 2**25  # they fit here, which is about the size of a last-level cache


class Clusters:
    """The images in the order of their labels, and what a criterion says of clusters and of pairs of them."""

    def __init__(self, images: Tensor, sizes: Tensor, criterion: Criterion):
        """``images`` (N, d), ``sizes`` (C,): the first ``sizes[0]`` images are cluster 0, and so on."""
        self.images, self.sizes, self.criterion = images, sizes, criterion
        self.members = list(images.split(sizes.tolist()))
        self.norms = torch.cat([some.double().square().sum(1) for some in images.split(BLOCK)])  # (N,) float64
        # The mean of roots is not the root of the mean: the average linkage takes its roots before, the others after.
        self.root_first = criterion.distance == "euclidean" and criterion.linkage == "average"
        self.root_last = criterion.distance == "euclidean" and criterion.linkage != "average"
        self.by_means = criterion.linkage == "centroid" or (criterion.linkage == "average" and not self.root_first)

    def __len__(self) -> int:
        """Number of clusters, C."""
        return len(self.members)

    def shares(self) -> Tensor:
        """λ times what each cluster adds to a score on its own, its size or dispersion: (C,) float64."""
        n = self.sizes.double()
        own = criteria.size(n) if self.criterion.regularizer == "size" else torch.zeros_like(n)
        if self.criterion.regularizer == "dispersion":
            for c in (self.sizes > 1).nonzero().flatten().tolist():
                for some in self.members[c].split(max(1, BLOCK_BYTES // (8 * len(self.members[c])))):
                    own[c] += criteria.pair_distances(some, self.members[c], self.criterion.distance).sum()
            own = criteria.dispersion(own, n, self.criterion.dispersion)
        return self.criterion.regularizer_weight * own

    def linkages(self, a: Tensor, b: Tensor) -> Tensor:
        """Linkages of pairs of clusters by their definition: (K,), (K,) -> (K,) float64."""
        linkage, distance = criteria.LINKAGES[self.criterion.linkage], self.criterion.distance
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        return torch.stack([linkage(self.members[a], self.members[b], distance) for a, b in pairs])

    def linkage_blocks(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
        """Yield ``first, block``: linkages of clusters first, first + 1, … (rows) with first and all after (columns).

        A pair appears once: on and under the diagonal entries are infinite. They are squared if ``root_last``. In
        float64 they are right to ``ROUNDING``, in float32 to ``slack``. A block is overwritten by the next.
        """
        points, base, counts = self._points()
        points, base = points.to(dtype), base.to(dtype)
        height = max(1, min(BLOCK, BLOCK_BYTES // (len(points) * points.element_size())))
        # The product takes half as long again on a CPU where rows of its result don't start at multiples of 64 bytes.
        buffer = points.new_empty(height, -(-len(points) // 16) * 16)

        def distances(rows: slice, low: int) -> Tensor:
            square = buffer[: rows.stop - rows.start, : len(points) - low]
            torch.addmm(base[None, low:], points[rows], points[low:].T, alpha=-2, out=square).add_(base[rows, None])
            square = threshold_(square, criteria.ROUNDING, 0.0) if dtype == torch.float64 else square
            return square.sqrt_() if self.root_first else square

        for first, last, spans in _row_blocks(counts.tolist(), height):
            parts = (distances(rows, spans[0].start) for rows in spans)
            block = next(parts) if len(points) == len(self) else self._link(parts, first, last)
            index = torch.arange(last - first, device=block.device)
            block[:, : last - first].masked_fill_(index[:, None] >= index, torch.inf)
            yield first, block

    def slack(self) -> float:
        """How far a float32 entry of ``linkage_blocks`` may be off.

        Let u = 2⁻²⁴ and M = max‖x‖². Summed in any order, p·q is off by at most γM with γ = du / (1 − du) (Higham,
        Accuracy and Stability of Numerical Algorithms, section 3.1), which counts twice. Rounding mean features to
        float32 adds 4uM, the two bases 2uM, the two additions 3uM and 4uM: while du < 0.01, under 2u (1.01 d + 8) M.
        """
        return (1.01 * self.images.shape[1] + 8) * torch.finfo(torch.float32).eps * float(self.norms.max())

    def _points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points (P, d), their base (P,) float64, and how many points each cluster has (C,).

        Points p and q are at squared distance ``base_p + base_q − 2 p·q``. They are the images, or ``by_means`` the
        mean features: these are all that the centroid linkage needs and, with the mean squared norm as the base, all
        that the average of squared distances needs, since mean‖x − y‖² = mean‖x‖² + mean‖y‖² − 2 μ_a·μ_b.
        """
        if not self.by_means or len(self) == len(self.images):
            return self.images, self.norms, self.sizes
        owner = torch.repeat_interleave(self.sizes)
        means = _reduce(self.images.double(), owner, len(self), "mean")
        average = self.criterion.linkage == "average"
        base = _reduce(self.norms[:, None], owner, len(self), "mean")[:, 0] if average else means.square().sum(1)
        return means, base, torch.ones_like(self.sizes)

    def _link(self, parts: Iterator[Tensor], first: int, last: int) -> Tensor:
        """Linkages of clusters first … last − 1 from distances of all their images: parts of (n, P) -> (c, C − first).

        There is more than one part only if it is a single cluster.
        """
        how = {"minimum": "amin", "maximum": "amax"}.get(self.criterion.linkage, "sum")
        rows, columns = torch.repeat_interleave(self.sizes[first:last]), torch.repeat_interleave(self.sizes[first:])
        parts = [_reduce(part, rows[: len(part)], last - first, how) for part in parts]
        block = getattr(torch.stack(parts), how)(0) if len(parts) > 1 else parts[0]
        block = _reduce(block.T, columns, len(self) - first, how).T
        return block / (self.sizes[first:last, None] * self.sizes[first:]) if how == "sum" else block


def _row_blocks(counts: list[int], height: int) -> Iterator[tuple[int, int, list[slice]]]:
    """Yield ``first, last, spans``: whole clusters of together at most ``height`` points, and slices of these points.

    There is one slice unless a single cluster has more points than that. The first blocks are small: whoever looks for
    the closest pairs learns from them how close the others must be.
    """
    ends, first, rows = [0, *itertools.accumulate(counts)], 0, -(-height // 64)
    while first < len(counts):
        last = max(first + 1, bisect.bisect_right(ends, ends[first] + rows) - 1)
        yield first, last, [slice(k, min(k + rows, ends[last])) for k in range(ends[first], ends[last], rows)]
        first, rows = last, min(4 * rows, height)


def _reduce(values: Tensor, owner: Tensor, count: int, how: str) -> Tensor:
    """Reduce the rows of each owner to one: (R, K), (R,) -> (count, K)."""
    out = values.new_zeros(count, values.shape[1])
    return out.scatter_reduce_(0, owner[:, None].expand_as(values), values.contiguous(), how, include_self=False)
