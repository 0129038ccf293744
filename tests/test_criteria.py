"""Each equation on numbers that can be checked by hand, and against the definitions that it abbreviates."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import dispersion as literal_dispersion
from reference import linkage as literal_linkage

from reprolib import criteria
from reprolib.recipe import Criterion

GOLDEN = Path(__file__).parent / "golden" / "merging"
DISTANCES = ("euclidean", "squared")


def clusters(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in sizes]


def ordered_pairs(cluster, distance="euclidean"):
    return criteria.pair_distances(cluster, cluster, distance).sum()


def test_pair_distances_are_the_released_matrix():
    stored = np.load(GOLDEN / "distance_s0.npz")
    features = torch.from_numpy(stored["feats"])
    ours = criteria.pair_distances(features, features, "squared")
    torch.testing.assert_close(ours, torch.from_numpy(stored["dists"]).double(), atol=1e-6, rtol=0)


def test_unit_vectors_at_60_degrees_are_at_distance_1():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, math.sqrt(0.75)]], dtype=torch.float64)
    assert criteria.pair_distances(a, b, "euclidean").item() == pytest.approx(1)
    assert criteria.pair_distances(b, -b, "squared").item() == pytest.approx(4)


@pytest.mark.parametrize("copies", [1, 40])  # torch.cdist takes another way from 26 rows on
def test_equal_features_are_at_distance_exactly_0(copies):
    features = torch.nn.functional.normalize(torch.randn(copies, 2048, generator=torch.Generator().manual_seed(0)))
    assert (criteria.pair_distances(features, features.clone(), "euclidean").diagonal() == 0).all()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", criteria.LINKAGES)
def test_linkages_match_literal_loops(name, distance):
    a, b = clusters(3, 4)
    features = torch.cat([a, b]).tolist()
    slow = literal_linkage(range(3), range(3, 7), features, Criterion(name, distance=distance))
    assert criteria.LINKAGES[name](a, b, distance).item() == pytest.approx(slow, abs=1e-11)


@pytest.mark.parametrize("name", criteria.LINKAGES)
def test_linkage_updates_give_what_the_images_give(name):
    a, b, s = clusters(2, 3, 4)
    distance = "squared" if name == "centroid" else "euclidean"
    linkage, update = criteria.LINKAGES[name], criteria.LINKAGE_UPDATES[name]
    updated = update(linkage(a, s, distance), linkage(b, s, distance), linkage(a, b, distance), 2, 3)
    torch.testing.assert_close(updated, linkage(torch.cat([a, b]), s, distance), atol=1e-11, rtol=0)


def test_two_points_at_distance_1_have_three_dispersions():
    # Ordered pairs: two zeros and the distance twice.
    assert criteria.dispersion(2.0, 2, "sum") == 1
    assert criteria.dispersion(2.0, 2, "mean") == 1 / 2
    assert criteria.dispersion_eq7(0.0, 0.0, 1.0, 1, 1) == 1 / 3


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("definition", ["sum", "mean"])
def test_dispersion_matches_a_literal_loop(definition, distance):
    (cluster,) = clusters(4)
    slow = literal_dispersion(range(4), cluster.tolist(), Criterion(distance=distance, dispersion=definition))
    assert criteria.dispersion(ordered_pairs(cluster, distance), 4, definition).item() == pytest.approx(slow)


@pytest.mark.parametrize("definition", ["sum", "mean"])
def test_exact_update_gives_the_dispersion_of_the_union(definition):
    a, b = clusters(2, 5)
    d_a, d_b, d_q = (criteria.dispersion(ordered_pairs(c), len(c), definition) for c in (a, b, torch.cat([a, b])))
    d_ab = criteria.average(a, b, "euclidean")
    torch.testing.assert_close(criteria.DISPERSION_UPDATES[definition](d_a, d_b, d_ab, 2, 5), d_q)


def test_average_of_squares_needs_only_centroids_and_spreads():
    a, b = clusters(3, 6)
    spreads = sum((c - c.mean(0)).square().sum(1).mean() for c in (a, b))
    torch.testing.assert_close(
        criteria.average(a, b, "squared"), criteria.centroid(a, b, "squared") + spreads, atol=1e-11, rtol=0
    )


def test_buc_dissimilarity_adds_lambda_times_both_sizes():
    # BUC Eq. (6): 0.5 + 0.1 (2 + 3)
    assert criteria.dissimilarity(0.5, 0.1 * criteria.size(2), 0.1 * criteria.size(3)) == pytest.approx(1.0)


def test_singletons_go_first_under_dbc():
    # DBC Section III-F: of two pairs at the same distance that with the smaller dispersions is the closer one.
    pair_of_singletons = criteria.dissimilarity(0.5, 0.0, 0.0)
    singleton_and_couple = criteria.dissimilarity(0.5, 0.0, 0.1 * criteria.dispersion(2 * 0.3, 2, "sum"))
    assert pair_of_singletons < singleton_and_couple
