"""The lookup table V (memory bank) with one row per cluster, and the repelled loss (BUC Section 3.2, DBC III-A)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-12  # the smallest divisor in torch.nn.functional.normalize


def _check_shapes(embedding: Tensor, pseudo_labels: Tensor, weight: Tensor) -> None:
    """Raise ValueError unless the shapes are those of a batch (B, d), its labels (B,) and a table (C, d)."""
    if not isinstance(pseudo_labels, Tensor) or pseudo_labels.dtype != torch.int64:
        got = pseudo_labels.dtype if isinstance(pseudo_labels, Tensor) else type(pseudo_labels).__name__
        raise ValueError(f"pseudo_labels must be a tensor of torch.int64, not {got}")
    if embedding.ndim != 2 or embedding.shape[1] != weight.shape[1]:
        raise ValueError(f"embedding has shape {tuple(embedding.shape)}, but the table takes (B, {weight.shape[1]})")
    if pseudo_labels.shape != embedding.shape[:1] or len(pseudo_labels) == 0:
        raise ValueError(
            f"pseudo_labels has shape {tuple(pseudo_labels.shape)} for {len(embedding)} embeddings; pass one for each"
        )


def _check_range(low: int, high: int, num_clusters: int) -> None:
    """Raise ValueError if the lowest or the highest label has no row."""
    if low < 0 or high >= num_clusters:
        raise ValueError(f"pseudo_labels lie in [{low}, {high}], but the table has only rows 0 to {num_clusters - 1}")


def repelled_loss(
    embedding: Tensor, pseudo_labels: Tensor, table: "LookupTable | Tensor", *, temperature: float
) -> Tensor:
    """Repelled loss, BUC Eq. (2)-(3): the mean over the batch of ``-log softmax(V v / temperature)[y]``.

    ``embedding`` is (B, d), ``pseudo_labels`` is (B,) int64 on any device, and ``table`` is a :class:`LookupTable` or
    its weight (C, d). The gradient flows only to ``embedding``. Returns a scalar.

    Raises:
        ValueError: shapes that do not match, a temperature that is not positive or, if the labels are on the host, a
            label without a row.
    """
    weight = table.weight if isinstance(table, LookupTable) else table
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive")
    _check_shapes(embedding, pseudo_labels, weight)
    if embedding.dtype != weight.dtype:
        raise ValueError(f"embedding is {embedding.dtype}, but the table {weight.dtype}; convert the embedding")
    if pseudo_labels.device.type == "cpu":  # on a device the check would have to wait for it
        _check_range(*torch.aminmax(pseudo_labels), len(weight))
    logits = embedding @ weight.detach().T / temperature  # (B, C)
    return F.cross_entropy(logits, pseudo_labels.to(logits.device, non_blocking=True))


class LookupTable:
    """Lookup table V of BUC Eq. (2): ``weight`` (C, d) has one row per cluster, starts at zero and has no gradient.

    The default normalizes rows as the released programs do; the papers' method, ``BUC``, has ``normalize=False``.
    """

    def __init__(
        self,
        num_clusters: int,
        dim: int,
        *,
        normalize: bool = True,
        device: torch.device | str | None = None,
    ):
        """Start from zeros; ``normalize`` scales updated rows to unit length (released code; not in BUC's paper)."""
        if num_clusters < 1 or dim < 1:
            raise ValueError(f"a table needs a row and a column or more, not {num_clusters} rows and {dim} columns")
        self.weight = torch.zeros(num_clusters, dim, device=device)
        self.normalize = normalize

    def check(self, pseudo_labels: Tensor) -> None:
        """Raise ValueError if a label has no row; takes any number of labels, on the host."""
        _check_range(*torch.aminmax(pseudo_labels), len(self.weight))

    def update(self, embedding: Tensor, pseudo_labels: Tensor) -> None:
        """Update rows: ``V_y <- (V_y + v) / 2`` [then normalized], BUC Section 3.2, sample by sample in batch order.

        ``embedding`` (B, d) is used as it is: after dropout it does not have unit length. A label that occurs twice in
        the batch is updated twice. Labels on the host are checked and grouped into a few steps. Labels on a device are
        not read, so that nothing waits for the device and a CUDA graph can contain the update. Raises ValueError as
        :func:`repelled_loss` does.
        """
        _check_shapes(embedding, pseudo_labels, self.weight)
        if pseudo_labels.device.type != "cpu":
            unseen = _update_normalized if self.normalize else _update_at_once
            unseen(self.weight, embedding.detach().to(self.weight), pseudo_labels)
            return
        labels = pseudo_labels.numpy()
        by_label = labels.argsort(kind="stable")
        _check_range(labels[by_label[0]], labels[by_label[-1]], len(self.weight))
        order, turns = _turns(labels, by_label)
        rows = torch.from_numpy(labels[order[: turns[0]]]).to(self.weight.device, non_blocking=True)
        order = torch.from_numpy(order).to(embedding.device, non_blocking=True)
        samples = embedding.detach().index_select(0, order).to(self.weight)
        updated = self.weight.index_select(0, rows)  # (num_labels, d)
        for v in samples.split(turns):
            _mean(updated[: len(v)].add_(v), self.normalize)
        self.weight.index_copy_(0, rows, updated)


def _mean(total: Tensor, normalize: bool) -> Tensor:
    """Turn sums of two vectors into means, in place and by rows; with ``normalize`` scale them to unit length."""
    if normalize:  # the sum has the direction of the mean; epsilon is doubled like the sum
        return total.div_(torch.linalg.vector_norm(total, dim=1, keepdim=True).clamp_min_(2 * _EPSILON))
    return total.mul_(0.5)


def _update_at_once(weight: Tensor, samples: Tensor, labels: Tensor) -> None:
    """Do :meth:`LookupTable.update` without reading the labels: all shapes are those of the batch.

    A row shared by k samples of the batch keeps 1 / 2^k of its old value; the last of these samples enters with
    weight 1/2, the one before it with 1/4. All k samples compute, and write, the same row.
    """
    same = labels[:, None] == labels  # (B, B)
    halvings = same.triu().sum(1)  # per sample: one, plus one for every later sample with its label
    shares = (same * 0.5**halvings).double()  # float64, so that the product is not rounded to TF32
    rows = weight.index_select(0, labels) * 0.5 ** same.sum(1)[:, None] + (shares @ samples.double()).to(weight)
    weight.index_copy_(0, labels, rows)


def _update_normalized(weight: Tensor, samples: Tensor, labels: Tensor) -> None:
    """Do the same with rows scaled to unit length: one sample after the other."""
    for v, label in zip(samples.split(1), labels.split(1), strict=True):
        weight.index_copy_(0, label, _mean(weight.index_select(0, label).add_(v), normalize=True))


def _turns(labels: np.ndarray, by_label: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the order (B,) of a batch's samples by turn, and the number of samples in each turn.

    The first sample of a label has turn 0, its second sample turn 1, and so on: the samples of one turn have distinct
    labels and can be processed together. Within a turn the most frequent labels come first, always in the same order,
    so that the labels of every turn are the first ones of turn 0. ``by_label`` (B,) is a stable sort of the labels.
    """
    labels = labels[by_label]
    first = labels.searchsorted(labels)
    count = labels.searchsorted(labels, side="right") - first
    turn = np.arange(len(labels)) - first
    return by_label[np.lexsort((-count, turn))], np.bincount(turn).tolist()


def cluster_means(embeddings: Tensor, pseudo_labels: Tensor) -> Tensor:
    """Compute the mean embedding of every cluster (C, d), to initialize a lookup table.

    ``embeddings`` is (N, d), ``pseudo_labels`` is (N,) int64 on any device, compact in [0, C). Released code: DBC
    starts a stage from the means (not normalized) of the clusters *before* the merge, so that row k is not label k's.

    Raises:
        ValueError: shapes that do not match, or labels that leave a cluster empty.
    """
    if embeddings.ndim != 2 or pseudo_labels.shape != embeddings.shape[:1] or len(embeddings) == 0:
        raise ValueError(
            f"pseudo_labels {tuple(pseudo_labels.shape)} do not fit embeddings {tuple(embeddings.shape)}; pass (N,) "
            "and (N, d)"
        )
    pseudo_labels = pseudo_labels.to(embeddings.device)
    if pseudo_labels.dtype != torch.int64 or pseudo_labels.min() < 0:
        raise ValueError("pseudo_labels must be int64 and not negative")
    counts = torch.bincount(pseudo_labels)
    if (counts == 0).any():
        raise ValueError(f"no image has label {int(counts.argmin())}: labels must be 0, 1, ..., C - 1 without a gap")
    by_label = embeddings.detach()[pseudo_labels.argsort(stable=True)]
    return torch.segment_reduce(by_label, "mean", lengths=counts, axis=0)
