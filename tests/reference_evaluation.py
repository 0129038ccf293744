"""Literal slow loops for the lookup table, the repelled loss, the ranking and the quality of clusters."""

import math
from itertools import combinations, pairwise

import numpy as np


def loss_reference(embedding, labels, table, temperature):
    """BUC Eq. (2)-(3), in float64, one sample and one cluster at a time."""
    total = 0.0
    for v, y in zip(embedding.astype(float), labels, strict=True):
        exponents = [math.exp(row @ v / temperature) for row in table.astype(float)]
        total -= math.log(exponents[y] / sum(exponents))
    return total / len(labels)


def update_reference(table, embedding, labels, *, normalize):
    """The table after a batch, one sample after the other."""
    table = table.copy()
    for v, y in zip(embedding, labels, strict=True):
        table[y] = (table[y] + v) / 2
        if normalize:
            table[y] /= max(np.sqrt((table[y] ** 2).sum()), 1e-12)
    return table


def means_reference(embeddings, labels):
    """Mean embedding of every cluster, in float64."""
    return np.stack([embeddings[labels == c].astype(float).mean(0) for c in range(labels.max() + 1)])


def ranking_reference(distmat, query_pids, gallery_pids, query_camids, gallery_camids, *, top_k):
    """CMC (top_k,), then for every valid query the AP by trapezoid and by step sum."""
    firsts, aps, aps_step = [], [], []
    for row, pid, camid in zip(distmat, query_pids, query_camids, strict=True):
        kept = [j for j in range(len(row)) if not (gallery_pids[j] == pid and gallery_camids[j] == camid)]
        kept.sort(key=lambda j: row[j])  # stable: equal distances stay in the order of the gallery
        matches = [gallery_pids[j] == pid for j in kept]
        if not any(matches):
            continue
        firsts.append(matches.index(True))
        points = [(0.0, 1.0)]  # (recall, precision) before anything is retrieved
        for threshold in sorted({row[j] for j in kept}):
            hits = [matches[i] for i, j in enumerate(kept) if row[j] <= threshold]
            points.append((sum(hits) / sum(matches), sum(hits) / len(hits)))
        steps = list(pairwise(points))
        aps.append(sum((r1 - r0) * (p0 + p1) / 2 for (r0, p0), (r1, p1) in steps))
        aps_step.append(sum((r1 - r0) * p1 for (r0, _), (r1, p1) in steps))
    cmc = [sum(first < k for first in firsts) / len(firsts) for k in range(1, top_k + 1)] if firsts else []
    return cmc, aps, aps_step


def quality_reference(labels, pids):
    """Purity, pair precision, pair recall: by looking at every cluster and at every pair."""
    clusters = [[p for p, y in zip(pids, labels, strict=True) if y == c] for c in set(labels)]
    purity = sum(max(members.count(p) for p in members) for members in clusters) / len(labels)
    pairs = list(combinations(range(len(labels)), 2))
    together = [(i, j) for i, j in pairs if labels[i] == labels[j]]
    alike = [(i, j) for i, j in pairs if pids[i] == pids[j]]
    both = sum(pids[i] == pids[j] for i, j in together)
    return purity, both / len(together) if together else 1.0, both / len(alike) if alike else 1.0
