"""One clustering stage: features and pseudo-labels in, pseudo-labels with m clusters fewer out.

What is ranked is exact: distances as float64 gives them, equal where they differ by rounding alone, ties to the smaller
label; so block size, threads and device don't change the result. It is fast because nearly all of the cost, the product
of all features with all features, is taken once for each pair, block by block, in the features' own precision, and
serves to bound the scores from below; the few pairs that may be merged are then scored exactly.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.recipe import Criterion

BLOCK = 384  # images whose distances are taken at a time, or fewer so that
BLOCK_ELEMENTS = 2**22  # no more distances than this are in memory
DOUBLE_UP_TO = 4096  # clusters; DBC's matrix is float64 up to here (128 MiB) and in the features' precision above


@torch.no_grad()
def merge_clusters(features: Tensor, pseudo_labels: Tensor, *, criterion: Criterion, merges_per_stage: int) -> Tensor:
    """Merge the closest clusters until there are ``merges_per_stage`` fewer; BUC Section 3.2, DBC Algorithm 1.

    ``features`` (N, d), unit rows, float32 or float64; ``pseudo_labels`` (N,) int64 in [0, C), no cluster empty.
    Returns (N,) int64 in [0, C − m), on the same device: the smaller label survives a merge, and new labels count up
    in the order of the surviving ones. Raises ValueError on anything else, and if C ≤ m.
    """
    sizes = _check(features, pseudo_labels, merges_per_stage)
    clusters = _Clusters(features[torch.argsort(pseudo_labels, stable=True)], sizes, criterion)
    merge = _merge_ranked_once if criterion.ranking == "once" else _merge_ranked_again
    survivor = torch.tensor(merge(clusters, merges_per_stage), device=pseudo_labels.device)  # (C,)
    return torch.unique(survivor, return_inverse=True)[1][pseudo_labels]


def _check(features: Tensor, pseudo_labels: Tensor, merges_per_stage: int) -> Tensor:
    """Cluster sizes (C,), or ValueError."""
    if features.ndim != 2 or len(features) == 0 or features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features must be (N, d) float32 or float64, not {tuple(features.shape)} {features.dtype}")
    if pseudo_labels.shape != features.shape[:1] or pseudo_labels.dtype != torch.int64:
        got = f"{tuple(pseudo_labels.shape)} {pseudo_labels.dtype}"
        raise ValueError(f"pseudo_labels must be ({len(features)},) int64, not {got}")
    if not torch.isfinite(torch.stack(torch.aminmax(features))).all():  # NaN wins in both
        raise ValueError("features must be finite")
    low, high = (int(v) for v in torch.aminmax(pseudo_labels))
    if low < 0 or high >= len(features) or (torch.bincount(pseudo_labels) == 0).any():
        raise ValueError("pseudo_labels must be 0, 1, ..., C - 1, each of at least one image")
    if not 0 < merges_per_stage <= high:
        raise ValueError(f"merges_per_stage={merges_per_stage}: {high + 1} clusters allow 1 to {high}")
    return torch.bincount(pseudo_labels)


class _Clusters:
    """The images in the order of their labels, and what a criterion says of clusters and pairs of them."""

    def __init__(self, images: Tensor, sizes: Tensor, criterion: Criterion):
        self.images, self.sizes, self.criterion = images, sizes, criterion
        self.members = list(images.split(sizes.tolist()))
        self.norms = torch.cat([some.double().square().sum(1) for some in images.split(BLOCK)])  # (N,) float64
        # The mean of roots is not the root of the mean: the average linkage takes its roots before, the others after.
        self.root_first = criterion.distance == "euclidean" and criterion.linkage == "average"
        self.root_last = criterion.distance == "euclidean" and criterion.linkage != "average"

    def __len__(self) -> int:
        """Number of clusters, C."""
        return len(self.members)

    def shares(self) -> Tensor:
        """λ times each cluster's own part of the regularizer: (C,) float64."""
        n = self.sizes.double()
        own = criteria.size(n) if self.criterion.regularizer == "size" else torch.zeros_like(n)
        if self.criterion.regularizer == "dispersion":
            for c in (self.sizes > 1).nonzero().flatten().tolist():
                for some in self.members[c].split(max(1, BLOCK_ELEMENTS // len(self.members[c]))):
                    own[c] += criteria.pair_distances(some, self.members[c], self.criterion.distance).sum()
            own = criteria.dispersion(own, n, self.criterion.dispersion)
        return self.criterion.regularizer_weight * own

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points (P, d), their base (P,) float64, and how many points each cluster has (C,).

        Points p and q are at squared distance ``base_p + base_q − 2 p·q``. They are the images, or the mean features:
        these are all that the centroid linkage needs and, with the mean squared norm as the base, all that the average
        of squared distances needs, since mean‖x − y‖² = mean‖x‖² + mean‖y‖² − 2 μ_a·μ_b.
        """
        if self.criterion.linkage in ("minimum", "maximum") or self.root_first or len(self) == len(self.images):
            return self.images, self.norms, self.sizes
        owner = torch.repeat_interleave(self.sizes)
        means = _reduce(self.images.double(), owner, len(self), "mean")
        average = self.criterion.linkage == "average"
        base = _reduce(self.norms[:, None], owner, len(self), "mean")[:, 0] if average else means.square().sum(1)
        return means, base, torch.ones_like(self.sizes)

    def slack(self) -> float:
        """How far a float32 entry of ``linkage_blocks`` may be off.

        Let u = 2⁻²⁴ and M = max‖x‖². Summed in any order, p·q is off by at most γM with γ = du / (1 − du) (Higham,
        Accuracy and Stability of Numerical Algorithms, section 3.1), which counts twice. Rounding mean features to
        float32 adds 4uM, the two bases 2uM, the two additions 3uM and 4uM: while du < 0.01, under 2u (1.01 d + 8) M.
        """
        return (1.01 * self.images.shape[1] + 8) * torch.finfo(torch.float32).eps * float(self.norms.max())

    def linkage_blocks(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
        """Yield ``first, block``: linkages of clusters first, first + 1, … (rows) with first and all after (columns).

        A pair appears once: on and under the diagonal entries are infinite. They are squared if ``root_last``.
        """
        points, base, counts = self.points()
        points, base, owner = points.to(dtype), base.to(dtype), torch.repeat_interleave(counts)
        how = {"minimum": "amin", "maximum": "amax"}.get(self.criterion.linkage, "sum")

        def distances(rows: slice, low: int) -> Tensor:
            square = torch.addmm(base[None, low:], points[rows], points[low:].T, alpha=-2).add_(base[rows, None])
            square = criteria.snap(square).clamp_min_(0) if dtype == torch.float64 else square
            return square.sqrt_() if self.root_first else square

        ends, first = [0, *torch.cumsum(counts, 0).tolist()], 0
        full = max(1, min(BLOCK, BLOCK_ELEMENTS // len(points)))
        height = -(-full // 64)
        while first < len(self):
            low, last = ends[first], first + 1
            while last < len(self) and ends[last + 1] - low <= height:
                last += 1
            # More than one span only if a single cluster is larger than a block.
            spans = [slice(top, min(top + height, ends[last])) for top in range(low, ends[last], height)]
            if len(points) == len(self):
                block = distances(spans[0], low)
            else:
                parts = [_reduce(distances(s, low), owner[s] - first, last - first, how) for s in spans]
                block = getattr(torch.stack(parts), how)(0) if len(parts) > 1 else parts[0]
                block = _reduce(block.T.contiguous(), owner[low:] - first, len(self) - first, how).T
                if how == "sum":
                    block = block / (counts[first:last, None] * counts[first:])
            index = torch.arange(last - first, device=block.device)
            block[:, : last - first].masked_fill_(index[:, None] >= index, torch.inf)
            yield first, block
            # Small blocks at first: whoever looks for the closest pairs soon knows how close they must be.
            first, height = last, min(4 * height, full)


def _reduce(values: Tensor, owner: Tensor, count: int, how: str) -> Tensor:
    """Reduce the rows of each owner to one: (R, K), (R,) -> (count, K)."""
    out = values.new_zeros(count, values.shape[1])
    return out.scatter_reduce_(0, owner[:, None].expand_as(values), values, how, include_self=False)


def _merge_ranked_once(clusters: _Clusters, merges: int) -> list[int]:
    """Both released programs, and BUC's text: merge down one ranking of the pairs."""
    for pairs in _rankings(clusters, merges):
        survivor = _unite(pairs.tolist(), len(clusters), merges, clusters.criterion.absorbed)
        if survivor:
            return survivor
    raise AssertionError("the ranking of all pairs has every merge that there is")


def _rankings(clusters: _Clusters, merges: int) -> Iterator[Tensor]:
    """Yield longer and longer parts of the exact ranking of all pairs, best first: (K, 2)."""
    shares, num_pairs = clusters.shares(), 64 * merges
    if clusters.images.dtype == torch.float32 and not clusters.root_first:
        pairs, bounds, beyond = _closest_pairs(clusters, shares, num_pairs, torch.float32)
        for count in sorted({min(2 * merges * growth, len(pairs)) for growth in (1, 4, 16, 64)}):
            scores = _exact_scores(clusters, shares, pairs[:count])
            if (scores < bounds[:count] - criteria.GRID).any():
                break  # not a float32 product: TF32 or bfloat16 is allowed in this process
            reach = float(bounds[count]) if count < len(pairs) else beyond
            sure = (scores < reach - criteria.GRID).nonzero().flatten()
            sure = sure[torch.argsort(pairs[sure, 0] * len(clusters) + pairs[sure, 1])]
            yield pairs[sure[torch.argsort(scores[sure], stable=True)]]
    while True:
        yield _closest_pairs(clusters, shares, num_pairs, torch.float64)[0]
        num_pairs *= 16


def _exact_scores(clusters: _Clusters, shares: Tensor, pairs: Tensor) -> Tensor:
    """Scores of pairs by the papers' definitions: (K, 2) -> (K,) float64."""
    linkage, members = criteria.LINKAGES[clusters.criterion.linkage], clusters.members
    linkages = [linkage(members[a], members[b], clusters.criterion.distance) for a, b in pairs.tolist()]
    return criteria.snap(criteria.dissimilarity(torch.stack(linkages), *shares[pairs.T]))


def _closest_pairs(
    clusters: _Clusters, shares: Tensor, num_pairs: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, float]:
    """The ``num_pairs`` pairs of lowest (score, smaller label, larger label) in that order, (K, 2), and their scores.

    In float32 scores are lower bounds. Third, what no other pair's score is below: infinity if there is no other.
    """
    slack = 0.0 if dtype == torch.float64 else clusters.slack()
    scores, keys, limit = shares.new_empty(0), clusters.sizes.new_empty(0), torch.inf
    for first, block in clusters.linkage_blocks(dtype):
        # Most entries are too far even with the smallest share: one comparison, with some room for its own rounding.
        room = limit - shares[first : first + len(block)] - shares[first:].min()
        room = room.clamp_min(0).square() if clusters.root_last else room
        a, b = (block <= (room * (1 + 2**-20) + slack).to(dtype)[:, None]).nonzero(as_tuple=True)
        linkage = (block[a, b].double() - slack).clamp_min_(0)
        linkage = linkage.sqrt_() if clusters.root_last else linkage
        found = criteria.snap(criteria.dissimilarity(linkage, shares[first + a], shares[first + b]))
        near = found < limit
        scores = torch.cat([scores, found[near]])
        keys = torch.cat([keys, ((first + a) * len(clusters) + first + b)[near]])  # ascending, so ties are in order
        if len(scores) > num_pairs:
            limit = float(scores.kthvalue(num_pairs).values)
            kept = scores < limit
            ties = (scores == limit).nonzero().flatten()
            kept[ties[: num_pairs - int(kept.sum())]] = True
            scores, keys = scores[kept], keys[kept]
    scores, order = torch.sort(scores, stable=True)
    keys = keys[order]
    return torch.stack([keys // len(clusters), keys % len(clusters)], dim=1), scores, limit


def _unite(pairs: list[list[int]], num_clusters: int, merges: int, absorbed: str) -> list[int] | None:
    """The label that each cluster ends with after ``merges`` merges down the ranking; None if the pairs run out.

    "follow": a pair stands for the clusters that its two are part of by now (Kruskal's algorithm, chains allowed).
    "skip": a pair is passed over if either of its two was absorbed.
    """
    parent = list(range(num_clusters))

    def find(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    for a, b in pairs:
        if absorbed == "follow":
            a, b = sorted((find(a), find(b)))
        if a == b or parent[a] != a or parent[b] != b:
            continue
        parent[b] = a
        merges -= 1
        if merges == 0:
            return [find(label) for label in range(num_clusters)]
    return None


def _merge_ranked_again(clusters: _Clusters, merges: int) -> list[int]:
    """DBC Algorithm 1: after each merge the matrix is updated, and the next pair is the best of the new matrix."""
    matrix = _Matrix(clusters)
    pairs = [matrix.merge_closest() for _ in range(merges)]
    return _unite(pairs, len(clusters), merges, "follow")


class _Matrix:
    """Linkages of all pairs (C, C), updated merge by merge, with the best score of every row kept.

    Row a holds the pairs with b > a; all else is infinite. A merge costs O(C), and as much again for each row whose
    best pair it took away.
    """

    def __init__(self, clusters: _Clusters):
        self.clusters, self.members, self.sizes = clusters, list(clusters.members), clusters.sizes.tolist()
        count = len(clusters)
        dtype = torch.float64 if count <= DOUBLE_UP_TO else clusters.images.dtype
        self.linkages = clusters.images.new_full((count, count), torch.inf, dtype=dtype)
        self.shares = clusters.shares().to(dtype)  # infinite once a cluster was absorbed
        self.best = self.shares.new_full((count,), torch.inf)
        for first, block in clusters.linkage_blocks(torch.float64):
            last = first + len(block)
            self.linkages[first:last, first:] = block
            scores = self.scores(self.linkages[first:last, first:], self.shares[first:last, None], self.shares[first:])
            self.best[first:last] = scores.amin(1)

    def scores(self, linkage: Tensor, share_a: Tensor, share_b: Tensor) -> Tensor:
        """Scores from entries of the matrix."""
        linkage = linkage.sqrt() if self.clusters.root_last else linkage
        scores = criteria.dissimilarity(linkage, share_a, share_b)
        return criteria.snap(scores) if scores.dtype == torch.float64 else scores

    def linkages_of(self, a: int) -> Tensor:
        """Linkages of a with every cluster: (C,)."""
        return torch.cat([self.linkages[:a, a], self.linkages[a, a:]])

    def merge_closest(self) -> tuple[int, int]:
        """Merge the best pair, the first of those that tie; returns it, smaller label first."""
        a = int(self.best.argmin())
        b = int(self.scores(self.linkages[a], self.shares[a], self.shares).argmin())
        d_a, d_b = self.linkages_of(a), self.linkages_of(b)
        lost = self.best == self.scores(d_a, self.shares, self.shares[a])
        lost |= self.best == self.scores(d_b, self.shares, self.shares[b])
        d_q = self.unite(a, b, d_a.double(), d_b.double()).to(d_a.dtype)
        self.linkages[:a, a], self.linkages[a, a + 1 :] = d_q[:a], d_q[a + 1 :]
        self.best[:a] = torch.minimum(self.best[:a], self.scores(d_q, self.shares, self.shares[a])[:a])
        lost[a] = True
        rows = (lost & (self.shares < torch.inf)).nonzero().flatten()
        self.best[b] = torch.inf
        self.best[rows] = self.scores(self.linkages[rows], self.shares[rows, None], self.shares).amin(1)
        return a, b

    def unite(self, a: int, b: int, d_as: Tensor, d_bs: Tensor) -> Tensor:
        """Let a become a ∪ b and b be gone, all but in the matrix; returns the linkages of a ∪ b, (C,)."""
        c, n_a, n_b = self.clusters.criterion, self.sizes[a], self.sizes[b]
        if c.regularizer == "size":
            self.shares[a] = c.regularizer_weight * criteria.size(n_a + n_b)
        elif c.regularizer == "dispersion":
            d_ab = c.regularizer_weight * criteria.average(self.members[a], self.members[b], c.distance)
            update = criteria.DISPERSION_UPDATES["eq7" if c.dispersion_update == "eq7" else c.dispersion]
            self.shares[a] = update(self.shares[a], self.shares[b], d_ab, n_a, n_b)  # linear, so λ d in, λ d out
        self.shares[b] = torch.inf
        self.members[a], self.sizes[a] = torch.cat([self.members[a], self.members[b]]), n_a + n_b
        return criteria.LINKAGE_UPDATES[c.linkage](d_as, d_bs, d_as[b], n_a, n_b).clamp_min_(0)
