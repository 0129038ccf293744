"""One clustering stage: features and pseudo-labels in, pseudo-labels with m clusters fewer out."""

import torch
from torch import Tensor

from reprolib import criteria
from reprolib.recipe import Criterion

BLOCK = 256  # images whose distances to all others are in memory at a time


@torch.no_grad()
def merge_clusters(features: Tensor, pseudo_labels: Tensor, *, criterion: Criterion, merges_per_stage: int) -> Tensor:
    """Merge the ``merges_per_stage`` closest pairs of clusters: (N, d) unit rows, (N,) int64 -> (N,) int64."""
    sizes = _check(features, pseudo_labels, merges_per_stage)
    order = torch.argsort(pseudo_labels, stable=True)
    stage = _Stage(features[order], sizes, criterion)
    merge = _merge_ranked_once if criterion.ranking == "once" else _merge_ranked_again
    survivor = torch.tensor(merge(stage, merges_per_stage), device=pseudo_labels.device)
    return torch.unique(survivor, return_inverse=True)[1][pseudo_labels]


def _check(features: Tensor, pseudo_labels: Tensor, merges_per_stage: int) -> Tensor:
    """Cluster sizes (C,); ValueError if the arguments don't make a stage."""
    if features.ndim != 2 or features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features must be (N, d) float32 or float64, not {tuple(features.shape)} {features.dtype}")
    if pseudo_labels.shape != features.shape[:1] or pseudo_labels.dtype != torch.int64:
        raise ValueError(
            f"pseudo_labels must be ({len(features)},) int64, not {tuple(pseudo_labels.shape)} {pseudo_labels.dtype}"
        )
    if len(features) == 0 or not torch.isfinite(features).all():
        raise ValueError("features must be finite and at least one row")
    if pseudo_labels.min() < 0 or pseudo_labels.max() >= len(features):
        raise ValueError("pseudo_labels must be 0..C-1, every cluster with an image")
    sizes = torch.bincount(pseudo_labels)
    if (sizes == 0).any():
        raise ValueError(f"pseudo_labels must be 0..C-1: cluster {int((sizes == 0).nonzero()[0])} has no image")
    if not 0 < merges_per_stage < len(sizes):
        raise ValueError(f"merges_per_stage={merges_per_stage}: {len(sizes)} clusters allow 1 to {len(sizes) - 1}")
    return sizes


class _Stage:
    """The images in cluster order and what a criterion says of them; cluster c is rows ``starts[c]:starts[c + 1]``."""

    def __init__(self, images: Tensor, sizes: Tensor, criterion: Criterion):
        self.images, self.sizes, self.criterion = images, sizes, criterion
        self.starts = [0, *torch.cumsum(sizes, 0).tolist()]
        self.weight = criterion.regularizer_weight
        # Square roots of means are not means of square roots: only these linkages come from the squared distances.
        self.root_last = criterion.distance == "euclidean" and criterion.linkage != "average"
        self.root_first = criterion.distance == "euclidean" and criterion.linkage == "average"

    def __len__(self) -> int:
        return len(self.sizes)

    def members(self, cluster: int) -> Tensor:
        return self.images[self.starts[cluster] : self.starts[cluster + 1]]

    def regularizers(self) -> Tensor:
        """Each cluster's own share of the regularizer, (C,) float64."""
        n = self.sizes.double()
        if self.criterion.regularizer == "none":
            return torch.zeros_like(n)
        if self.criterion.regularizer == "size":
            return criteria.size(n)
        totals = torch.zeros_like(n)
        for c in (self.sizes > 1).nonzero().flatten().tolist():
            for rows in self.members(c).split(4 * BLOCK):
                totals[c] += criteria.pair_distances(rows, self.members(c), distance=self.criterion.distance).sum()
        return criteria.dispersion_sum(totals, n) if self.criterion.dispersion == "sum" else (
            criteria.dispersion_mean(totals, n)
        )

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points (P, d), their base (P,) and the clusters' numbers of points (C,), in float64.

        The squared distance of points p and q is ``base_p + base_q − 2 p·q``. With mean features as the points it is
        the centroid linkage, and with the mean squared norms as the base the average linkage of squared distances,
        since mean‖x_i − y_j‖² = mean‖x‖² + mean‖y‖² − 2 μ_a·μ_b.
        """
        images = self.images.double()
        norms = images.square().sum(1)
        if self.criterion.linkage not in ("centroid", "average") or self.root_first:
            return images, norms, self.sizes
        owner = torch.repeat_interleave(torch.arange(len(self), device=images.device), self.sizes)
        means = images.new_zeros(len(self), images.shape[1]).index_add_(0, owner, images) / self.sizes[:, None]
        if self.criterion.linkage == "average":
            base = norms.new_zeros(len(self)).index_add_(0, owner, norms) / self.sizes
        else:
            base = means.square().sum(1)
        return means, base, torch.ones_like(self.sizes)

    def linkage_blocks(self):
        """Yield ``first, block``: linkages of clusters first, first + 1, … (rows) with those from first on (columns).

        Entries on and under the diagonal are infinite: a pair appears once. No root is taken if ``root_last``.
        """
        points, base, counts = self.points()
        starts = [0, *torch.cumsum(counts, 0).tolist()]
        owner = torch.repeat_interleave(torch.arange(len(counts), device=points.device), counts)
        how, start_value = {"minimum": ("amin", torch.inf), "maximum": ("amax", -torch.inf)}.get(
            self.criterion.linkage, ("sum", 0.0)
        )
        first = 0
        while first < len(counts):
            last = first + 1
            while last < len(counts) and starts[last + 1] - starts[first] <= BLOCK:
                last += 1
            low = starts[first]
            block = points.new_full((last - first, len(points) - low), start_value)
            for top in range(low, starts[last], BLOCK):
                rows = slice(top, min(top + BLOCK, starts[last]))
                square = torch.addmm(base[None, low:], points[rows], points[low:].T, alpha=-2)
                square = criteria.snap(square.add_(base[rows, None])).clamp_min_(0)
                square = square.sqrt_() if self.root_first else square
                to = (owner[rows] - first)[:, None].expand_as(square)
                block.scatter_reduce_(0, to, square, how)
            if len(points) > len(counts):
                to = (owner[low:] - first)[:, None].expand_as(block.T)
                block = block.T.contiguous()
                block = block.new_full((len(counts) - first, last - first), start_value).scatter_reduce_(0, to, block, how).T
                if how == "sum":
                    block = block / (counts[first:last, None] * counts[first:])
            i = torch.arange(last - first, device=points.device)
            block[:, : last - first].masked_fill_(i[:, None] >= i, torch.inf)
            yield first, block
            first = last


def _merge_ranked_once(stage: _Stage, merges: int) -> list[int]:
    own = stage.regularizers()
    num_pairs = 64 * merges
    while True:
        pairs = _closest_pairs(stage, own, num_pairs)
        survivor = _unite(pairs.tolist(), len(stage), merges, stage.criterion.absorbed)
        if survivor is not None:
            return survivor
        num_pairs *= 16


def _closest_pairs(stage: _Stage, own: Tensor, num_pairs: int) -> Tensor:
    """The ``num_pairs`` closest pairs of clusters in ascending order of (score, smaller label, larger label)."""
    scores, keys, limit = own.new_empty(0), own.new_empty(0, dtype=torch.int64), torch.inf
    for first, block in stage.linkage_blocks():
        block = block.sqrt() if stage.root_last else block
        last = first + len(block)
        block = criteria.snap(criteria.dissimilarity(block, own[first:last, None], own[first:], stage.weight))
        near = block < limit
        a, b = near.nonzero(as_tuple=True)
        scores = torch.cat([scores, block[a, b]])
        keys = torch.cat([keys, (first + a) * len(stage) + first + b])
        if len(scores) > num_pairs:
            limit = float(scores.kthvalue(num_pairs).values)
            ties = (scores == limit).nonzero().flatten()
            kept = scores < limit
            kept[ties[: num_pairs - int(kept.sum())]] = True
            scores, keys = scores[kept], keys[kept]
    keys = keys[torch.argsort(scores, stable=True)]
    return torch.stack([keys // len(stage), keys % len(stage)], dim=1)


def _unite(pairs, num_clusters: int, merges: int, absorbed: str) -> list[int] | None:
    """The label that each cluster ends with after ``merges`` merges, the smaller surviving; None if pairs run out."""
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


def _merge_ranked_again(stage: _Stage, merges: int) -> list[int]:
    """DBC Algorithm 1: after each merge the matrix is updated, and the next pair is the best of the new matrix."""
    c, count = stage.criterion, len(stage)
    matrix = stage.images.new_full((count, count), torch.inf)  # above the diagonal; infinite where a cluster is gone
    for first, block in stage.linkage_blocks():
        matrix[first : first + len(block), first:] = block
    own, sizes = stage.regularizers(), stage.sizes.double()
    members = {}
    survivor = list(range(count))
    update = getattr(criteria, f"{c.linkage}_update")

    def nearest(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Score and partner of the best pair of each row: (R,) float64, (R,) int64."""
        linkage = matrix[rows].double()
        scores = criteria.dissimilarity(linkage.sqrt() if stage.root_last else linkage, own[rows, None], own, stage.weight)
        partner = scores.argmin(1)
        return scores.gather(1, partner[:, None]).flatten(), partner

    parts = [nearest(rows) for rows in torch.arange(count, device=matrix.device).split(BLOCK)]
    best, partner = (torch.cat(p) for p in zip(*parts, strict=True))
    for _ in range(merges):
        a = int(best.argmin())
        b = int(partner[a])
        n_a, n_b = sizes[a].clone(), sizes[b].clone()
        row_a, row_b = (torch.minimum(matrix[k], matrix[:, k]).double() for k in (a, b))
        row = update(row_a, row_b, row_a[b], n_a, n_b).clamp_min_(0)
        images_a, images_b = (members.pop(k, None) if k in members else stage.members(k) for k in (a, b))
        if c.regularizer == "size":
            own[a] = criteria.size(n_a + n_b)
        elif c.regularizer == "dispersion":
            name = "eq7" if c.dispersion_update == "eq7" else f"{c.dispersion}_exact"
            cross = criteria.average(criteria.pair_distances(images_a, images_b, distance=c.distance))
            own[a] = getattr(criteria, f"dispersion_{name}")(own[a], own[b], cross, n_a, n_b)
        members[a] = torch.cat([images_a, images_b])
        sizes[a] = n_a + n_b
        survivor = [a if s == b else s for s in survivor]
        matrix[:a, a], matrix[a, a + 1 :] = row[:a].to(matrix.dtype), row[a + 1 :].to(matrix.dtype)
        matrix[b], matrix[:, b] = torch.inf, torch.inf
        # Rows whose best pair is gone or has changed are searched again; elsewhere the pair with a may be a new best.
        stale = (partner == a) | (partner == b)
        stale[a], stale[b] = True, True
        rows = stale.nonzero().flatten()
        best[rows], partner[rows] = nearest(rows)
        linkage = matrix[:a, a].double()
        score = criteria.dissimilarity(linkage.sqrt() if stage.root_last else linkage, own[:a], own[a], stage.weight)
        better = (score < best[:a]) | ((score == best[:a]) & (a < partner[:a]))
        best[:a], partner[:a] = torch.where(better, score, best[:a]), torch.where(better, a, partner[:a])
    return survivor
