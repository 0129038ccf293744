"""Cluster quality: by hand, against scikit-learn and against a look at every pair."""

import json
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from reference_evaluation import quality_reference
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_score

from reprolib import quality
from reprolib.quality import cluster_quality, cluster_validity, gathering, recall_across_cameras

GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")])
labels_and_pids = st.integers(1, 25).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-1, 8), min_size=n, max_size=n) for _ in range(2)])
)


def test_quality_by_hand():
    # clusters {7 7 9} {9 9} {4}: of 4 pairs in a cluster 2 are of one pid, of 4 pairs of one pid 2 are in a cluster
    quality = cluster_quality(torch.tensor([0, 0, 0, 2, 2, 1]), np.array([7, 7, 9, 9, 9, 4]))
    assert (quality.num_clusters, quality.num_singletons, quality.largest_cluster) == (3, 1, 3)
    assert quality.size_histogram == [[1, 1], [2, 1], [3, 1]]
    assert quality.purity == 5 / 6
    assert (quality.pair_precision, quality.pair_recall) == (2 / 4, 2 / 4)


@settings(deadline=None)
@given(labels_and_pids)
def test_quality_matches_scikit_learn_and_a_look_at_every_pair(ids):
    labels, pids = ids
    quality = cluster_quality(np.array(labels), np.array(pids))
    known = [(label, pid) for label, pid in zip(labels, pids, strict=True) if pid >= 0]
    if known:
        expected = quality_reference(*zip(*known, strict=True))
        np.testing.assert_allclose((quality.purity, quality.pair_precision, quality.pair_recall), expected)
        rand = adjusted_rand_score(*reversed(list(zip(*known, strict=True))))
        np.testing.assert_allclose(quality.adjusted_rand_index, rand, atol=1e-12)
    else:
        assert quality.purity is quality.adjusted_rand_index is quality.pair_recall is None
    assert sum(size * count for size, count in quality.size_histogram) == len(labels)


@settings(deadline=None)
@given(labels_and_pids, st.randoms(use_true_random=False))
def test_quality_depends_on_neither_order_nor_numbering(ids, random):
    labels, pids = map(np.array, ids)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    assert cluster_quality(labels[order], pids[order]) == cluster_quality(
        5 - 3 * labels, np.where(pids < 0, -7, 100 + pids)
    )


def test_one_cluster_an_image_is_pure_and_claims_no_pair():
    quality = cluster_quality(torch.arange(6), torch.tensor([0, 0, 0, 1, 1, 2]))
    assert (quality.purity, quality.pair_precision, quality.pair_recall) == (1, 1, 0)
    assert quality.adjusted_rand_index == 0
    assert quality.num_singletons == 6


def test_quality_is_whole_after_json():
    quality = asdict(cluster_quality(np.array([0, 0, 1]), np.array([3, 3, 3])))
    assert json.loads(json.dumps(quality)) == quality


@given(st.integers(0, 2**32 - 1))
def test_recall_across_cameras_matches_a_look_at_every_pair(seed):
    labels, pids, camids = np.random.default_rng(seed).integers(0, 3, (3, 12))
    pids -= 1  # some are unknown
    pairs = [(i, j) for i, j in combinations(range(12), 2) if pids[i] == pids[j] >= 0 and camids[i] != camids[j]]
    found = [labels[i] == labels[j] for i, j in pairs]
    assert recall_across_cameras(labels, pids, camids) == (np.mean(found) if pairs else 1)


def test_counts_of_a_large_set_do_not_overflow():
    quality = cluster_quality(np.zeros(200_000, np.int32), np.zeros(200_000, np.int16))
    assert (quality.pair_recall, quality.adjusted_rand_index) == (1, 1)


@pytest.mark.parametrize(
    ("labels", "pids"), [([0, 1], [0, 1, 2]), ([], []), ([[0, 1]], [[0, 1]]), ([0.0, 1.0], [0, 1])]
)
def test_labels_that_do_not_fit_are_refused(labels, pids):
    with pytest.raises(ValueError, match="must"):
        cluster_quality(torch.tensor(labels), torch.tensor(pids, dtype=torch.int64))


def test_validity_is_higher_for_the_clusters_that_were_drawn_than_for_others():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.arange(40) % 4
    points = torch.eye(4)[drawn] + 0.1 * torch.randn(40, 4, generator=generator)
    other = drawn[torch.randperm(40, generator=generator)]
    right, wrong = cluster_validity(points, drawn), cluster_validity(points, other)
    assert right["silhouette"] > 0.7 > 0.1 > wrong["silhouette"]
    assert right["calinski_harabasz"] > wrong["calinski_harabasz"]
    assert right["davies_bouldin"] < wrong["davies_bouldin"]


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("block", [2**25, 50], ids=["at once", "in blocks"])
@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 12))
@example(8, 30, 8)  # two clusters whose centers are one
def test_validity_matches_scikit_learn(block, device, seed, points, clusters):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randint(-2, 3, (points, 3), generator=generator).float()  # some lie in one place
    features += 1e-3 * torch.randn(points, 3, generator=generator) * (seed % 2)
    labels = torch.randint(clusters, (points,), generator=generator)
    assume(1 < len(labels.unique()) < points)
    expected = [
        score(features.numpy(), labels.numpy())
        for score in (silhouette_score, calinski_harabasz_score, davies_bouldin_score)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "BLOCK", {"cpu": block, "cuda": block})
        found = cluster_validity(features.to(device), 7 - 2 * labels)
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1]), torch.tensor([0.0, 1.0, 1.0])], ids=["too few", "no integers"]
)
def test_validity_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="must be"):
        cluster_validity(torch.eye(3), labels)


@pytest.mark.parametrize(
    "labels", [torch.zeros(5, dtype=torch.long), torch.arange(5)], ids=["one", "as many as images"]
)
def test_validity_is_empty_where_it_is_undefined(labels):
    assert cluster_validity(torch.eye(5), labels) == {}


def test_identities_gather_by_features_by_pixels_and_in_clusters():
    dark_above = np.zeros((4, 2, 3), np.uint8)
    dark_above[2:] = 200
    dark_left = np.zeros((4, 2, 3), np.uint8)
    dark_left[:, 1] = 200
    frames = np.stack([dark_above, dark_above // 2, dark_left, dark_left + 20, dark_above + 20])
    pids, camids = np.array([0, 1, 2, 2, 0]), np.array([0, 0, 0, 1, 1])
    found = gathering(np.array([4, 3, 3, 2, 2]), np.array([0, 1, 1, 1, 2]), frames=frames, pids=pids, camids=camids)
    # by pixels 4, 4, 3, 2, 0 are the nearest; identities 0 and 2 lie mostly in clusters where they prevail, 1 does not
    assert list(found.values()) == [60, 80, 3, 1, 3, 3, 2]
    unknown = np.array([0, -1, 2, 2, 0])  # leaves two identities, each with a cluster of its own
    found = gathering(np.array([4, 3, 3, 2, 2]), np.array([0, 1, 1, 1, 2]), frames=frames, pids=unknown, camids=camids)
    assert list(found.values()) == [75, 100, 3, 0, 0, 2, 2]
