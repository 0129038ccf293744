"""The merging of both papers as literal loops: what the fast code must equal. Slow on purpose, for tests alone.

Clusters are lists of image indices, everything is a Python float, and nothing is updated that can be computed again
from its definition. A pair is (score, a, b) with a < b. The lowest score is next; where scores differ by the rounding
of sums alone, the smaller a is next, then the smaller b.
"""

import math

ROUNDING = 1e-12


def distance(x, y, criterion):
    """BUC Eq. (4)'s ``d``: Euclidean, or squared."""
    squared = sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
    return squared if criterion.distance == "squared" else math.sqrt(squared)


def mean_feature(cluster, features):
    """Mean of the features of a cluster."""
    return [math.fsum(features[i][k] for i in cluster) / len(cluster) for k in range(len(features[0]))]


def linkage(a, b, features, criterion, kind=None):
    """BUC Eq. (4) and text; DBC Eq. (4)."""
    kind = kind or criterion.linkage
    if kind == "centroid":
        return distance(mean_feature(a, features), mean_feature(b, features), criterion)
    distances = [distance(features[i], features[j], criterion) for i in a for j in b]
    if kind == "average":
        return math.fsum(distances) / len(distances)
    return min(distances) if kind == "minimum" else max(distances)


def dispersion(cluster, features, criterion):
    """DBC Eq. (3), or the released mean over all n² ordered pairs."""
    total = math.fsum(distance(features[i], features[j], criterion) for i in cluster for j in cluster)
    return total / len(cluster) ** (1 if criterion.dispersion == "sum" else 2)


def score(a, b, spread_a, spread_b, features, criterion):
    """BUC Eq. (6); DBC Eq. (5)."""
    value = linkage(a, b, features, criterion)
    if criterion.regularizer == "size":
        value += criterion.regularizer_weight * (len(a) + len(b))
    if criterion.regularizer == "dispersion":
        value += criterion.regularizer_weight * (spread_a + spread_b)
    return value


def ranking(clusters, spreads, features, criterion):
    """All pairs, best first."""
    pairs = [(a, b) for a in clusters for b in clusters if a < b]
    scores = [score(clusters[a], clusters[b], spreads[a], spreads[b], features, criterion) for a, b in pairs]
    tied = []  # lists of pairs of equal score
    last = -math.inf
    for value, pair in sorted(zip(scores, pairs, strict=True)):
        if value - last > ROUNDING:
            tied.append([])
        tied[-1].append(pair)
        last = value
    return [pair for pairs in tied for pair in sorted(pairs)]


def ranked_once(clusters, spreads, features, criterion, merges):
    """Merge down one ranking; where an absorbed cluster went is followed, or its pairs are skipped."""
    goes_to = {label: label for label in clusters}
    for a, b in ranking(clusters, spreads, features, criterion):
        if merges == 0:
            break
        if criterion.absorbed == "skip" and (goes_to[a] != a or goes_to[b] != b):
            continue
        keep, gone = sorted((goes_to[a], goes_to[b]))
        if keep == gone:
            continue
        # Under "skip" what b absorbed earlier goes along with b, so both rules send all of ``gone`` to ``keep``.
        goes_to = {label: keep if end == gone else end for label, end in goes_to.items()}
        merges -= 1
    return goes_to


def ranked_again(clusters, spreads, features, criterion, merges):
    """DBC Algorithm 1: rank, merge the best pair, and rank again."""
    goes_to = {label: label for label in clusters}
    for _ in range(merges):
        a, b = ranking(clusters, spreads, features, criterion)[0]
        if criterion.dispersion_update == "eq7":
            n_a, n_b = len(clusters[a]), len(clusters[b])
            d_ab = linkage(clusters[a], clusters[b], features, criterion, kind="average")
            spreads[a] = (n_a * spreads[a] + n_b * spreads[b] + n_a * n_b * d_ab) / (n_a + n_b + n_a * n_b)
        clusters[a] = clusters[a] + clusters.pop(b)
        if criterion.dispersion_update == "exact":
            spreads[a] = dispersion(clusters[a], features, criterion)
        goes_to = {label: a if end == b else end for label, end in goes_to.items()}
    return goes_to


def merge_clusters(features, pseudo_labels, *, criterion, merges_per_stage):
    """One stage: lists of floats and ints in, a list of ints out; new labels count up with the surviving labels."""
    clusters = {}
    for image, label in enumerate(pseudo_labels):
        clusters.setdefault(label, []).append(image)
    spreads = {label: dispersion(cluster, features, criterion) for label, cluster in clusters.items()}
    merge = ranked_once if criterion.ranking == "once" else ranked_again
    goes_to = merge(clusters, spreads, features, criterion, merges_per_stage)
    new_label = {label: k for k, label in enumerate(sorted(set(goes_to.values())))}
    return [new_label[goes_to[label]] for label in pseudo_labels]
