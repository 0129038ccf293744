"""One clustering stage: equal to the released programs' outputs, to literal loops, and to scipy where that applies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

from benchmarks.measure import peak_bytes
from benchmarks.rows import Row
from reprolib import criteria
from reprolib.merging import clusters as clusters_module
from reprolib.merging import merge_clusters, products, ranked_again, ranked_once
from reprolib.merging.clusters import Clusters
from reprolib.recipe import BUC, BUC_RELEASED, DBC, DBC_RELEASED, Criterion

GOLDEN = Path(__file__).parent / "golden" / "merging"
RELEASED = {"buc": BUC_RELEASED.criterion, "dbc": DBC_RELEASED.criterion}
# What DBC's program computes before it ranks the pairs without λ's term.
PENALIZED = replace(DBC_RELEASED.criterion, regularizer="dispersion")
NAMED = {r.name: r.criterion for r in (BUC, DBC, BUC_RELEASED, DBC_RELEASED)}
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
)


@pytest.fixture(autouse=True)
def float32_bounds_are_used_however_small_the_stage(monkeypatch):
    """Else a stage of a test's size is ranked in float64, which is quicker; with ``more_than_double`` in both ways."""
    monkeypatch.setattr(ranked_once, "PAIR_COST", 0)
    monkeypatch.setattr(ranked_again, "PAIR_COST", 0)
    monkeypatch.setattr(ranked_again, "IMAGE_COST", 0)


@pytest.fixture(params=["few clusters", "many clusters"])
def more_than_double(request, monkeypatch):
    """Ranked anew after every merge, clusters count as few, for float64, and as many, for bounds."""
    if request.param == "many clusters":
        monkeypatch.setattr(ranked_again, "DOUBLE_UP_TO", {"cpu": 0, "cuda": 0})


def golden(pattern):
    files = sorted(GOLDEN.glob(pattern))
    assert files, pattern
    return pytest.mark.parametrize("file", files, ids=lambda file: file.stem)


def people(count, *, dim=16, identities=20, seed=0, dtype=torch.float32):
    """Unit rows around a few centers, as features of people are."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(identities, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    features = centers[torch.randint(identities, (count,), generator=generator)] + noise
    return torch.nn.functional.normalize(features).to(dtype)


def some_labels(count, num_clusters, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        [torch.arange(num_clusters), torch.randint(num_clusters, (count - num_clusters,), generator=generator)]
    )
    return labels[torch.randperm(count, generator=generator)]


def canonical(labels):
    """Clusters named by the order in which they first appear."""
    names = {}
    return [names.setdefault(label, len(names)) for label in labels.tolist()]


def on_circle(*degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


# --- the released programs ------------------------------------------------------------------------------------------


@golden("*_cont_*.npz")
def test_a_released_stage_is_reproduced(file):
    stored = np.load(file)
    criterion = replace(RELEASED[file.stem[:3]], regularizer_weight=float(stored["lam"]))
    features, labels = torch.from_numpy(stored["feats"]), torch.from_numpy(stored["labels_in"])
    ours = merge_clusters(features, labels, criterion=criterion, merges_per_stage=int(stored["m"]))
    assert ours.tolist() == stored["labels_out"].tolist()


@golden("dbc_cont_*.npz")
def test_the_released_penalized_ranking_is_reproduced(file):
    stored = np.load(file)
    criterion = replace(PENALIZED, regularizer_weight=float(stored["lam"]))
    features, labels = torch.from_numpy(stored["feats"]), torch.from_numpy(stored["labels_in"])
    ours = merge_clusters(features, labels, criterion=criterion, merges_per_stage=int(stored["m"]))
    assert ours.tolist() == stored["labels_out_variant_penalized"].tolist()


@golden("dbc_cont_*.npz")
def test_released_linkages_and_dispersions_are_reproduced(file):
    stored = np.load(file)
    labels = torch.from_numpy(stored["labels_in"])
    images = torch.from_numpy(stored["feats"])[torch.argsort(labels, stable=True)]
    clusters = Clusters(images, torch.bincount(labels), replace(PENALIZED, regularizer_weight=1.0))
    linkages = torch.from_numpy(stored["linkages"])
    torch.testing.assert_close(clusters.shares(), linkages.diagonal(), atol=1e-6, rtol=0)
    penalized = torch.from_numpy(stored["penalized"])
    for first, start, block in clusters.linkage_blocks(clusters.points()):
        rows, columns = slice(first, first + len(block)), slice(start, start + block.shape[1])
        above = block.isfinite()
        torch.testing.assert_close(block[above], linkages[rows, columns][above], atol=1e-6, rtol=0)
        shares = float(stored["lam"]) * clusters.shares()
        ours = block + shares[rows, None] + shares[columns]
        torch.testing.assert_close(ours[above], penalized[rows, columns][above], atol=1e-6, rtol=0)


@golden("*_traj_*.npz")
def test_a_released_trajectory_is_reproduced_from_its_first_stage_to_its_last(file):
    stored = np.load(file)
    ways = {"labels": RELEASED[file.stem[:3]]}
    if file.stem.startswith("dbc"):
        ways["labels_stable_variant_penalized"] = PENALIZED
    for name, criterion in ways.items():
        criterion = replace(criterion, regularizer_weight=float(stored["lam"]))
        labels = torch.arange(stored["feats"].shape[1])
        for features, wanted in zip(torch.from_numpy(stored["feats"]), stored[name], strict=True):
            labels = merge_clusters(features, labels, criterion=criterion, merges_per_stage=int(stored["m"]))
            assert labels.tolist() == wanted.tolist()


# --- literal loops --------------------------------------------------------------------------------------------------

criterion_strategy = st.builds(
    Criterion,
    linkage=st.sampled_from(["minimum", "maximum", "centroid", "average"]),
    regularizer=st.sampled_from(["none", "size", "dispersion"]),
    regularizer_weight=st.sampled_from([0.003, 0.1, 0.5, 2.0]),
    distance=st.sampled_from(["euclidean", "squared"]),
    ranking=st.sampled_from(["once", "each_merge"]),
    absorbed=st.sampled_from(["follow", "skip"]),
    dispersion=st.sampled_from(["sum", "mean"]),
    dispersion_update=st.sampled_from(["eq7", "exact"]),
)


@st.composite
def stages(draw):
    """Features of any kind of tie, labels without gaps, m up to C − 1."""
    count = draw(st.integers(2, 14))
    num_clusters = draw(st.integers(2, count))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["distinct", "duplicates", "identical", "corners", "axes"]))
    features = rng.normal(size=(count, 4))
    if kind == "duplicates":
        features = features[rng.integers(0, max(1, count // 2), count)]
    elif kind == "identical":
        features[:] = features[0]
    elif kind == "corners":
        features = rng.choice([-0.5, 0.5], size=(count, 4))
    elif kind == "axes":
        features = np.eye(4)[rng.integers(0, 4, count)]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.permutation(
        np.concatenate([np.arange(num_clusters), rng.integers(0, num_clusters, count - num_clusters)])
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(features, dtype=dtype), torch.tensor(labels), draw(st.integers(1, num_clusters - 1))


@settings(max_examples=400, deadline=None)
@given(
    stage=stages(),
    criterion=criterion_strategy,
    block=st.sampled_from([1, 300, 2**25]),
    pairs=st.sampled_from([1, 64]),
    cost=st.sampled_from([0, 64]),
    precision=st.sampled_from(list(products.BITS)),
    double_up_to=st.sampled_from([0, 4096]),
)
def test_streamed_merging_matches_reference(stage, criterion, block, pairs, cost, precision, double_up_to):
    features, labels, merges = stage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters_module, "BLOCK_BYTES", block)
        patch.setattr(ranked_once, "PAIRS_PER_MERGE", pairs)
        patch.setattr(ranked_once, "PAIR_COST", cost)
        patch.setattr(ranked_again, "DOUBLE_UP_TO", {"cpu": double_up_to})
        patch.setattr(products, "quickest", lambda device: precision)
        fast = merge_clusters(features, labels, criterion=criterion, merges_per_stage=merges)
    slow = reference.merge_clusters(features.tolist(), labels.tolist(), criterion=criterion, merges_per_stage=merges)
    assert fast.tolist() == slow


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("num_clusters", [60, 25])
def test_named_recipes_match_reference_at_a_larger_size(name, num_clusters):
    features, labels = people(60), some_labels(60, num_clusters)
    fast = merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=12)
    slow = reference.merge_clusters(features.tolist(), labels.tolist(), criterion=NAMED[name], merges_per_stage=12)
    assert fast.tolist() == slow


@settings(max_examples=60, deadline=None)
@given(stage=stages(), criterion=criterion_strategy)
def test_a_linkage_given_as_a_function_merges_as_the_one_known_by_name(stage, criterion):
    features, labels, merges = stage
    named = replace(criterion, ranking="once")

    def own_linkage(a, b, distance):
        return criteria.LINKAGES[named.linkage](a, b, distance)

    own = replace(named, linkage=own_linkage)
    wanted = merge_clusters(features, labels, criterion=named, merges_per_stage=merges)
    assert merge_clusters(features, labels, criterion=own, merges_per_stage=merges).tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["buc", "buc_released", "dbc_released"])
def test_a_ranking_cut_short_is_the_best_of_the_whole(name, dtype, monkeypatch):
    # 80 pairs are kept of 11,175, 40 of which merge.
    monkeypatch.setattr(ranked_once, "PAIRS_PER_MERGE", 2)
    features, labels = people(180, dim=6, dtype=dtype), some_labels(180, 150)
    fast = merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=40)
    slow = reference.merge_clusters(features.tolist(), labels.tolist(), criterion=NAMED[name], merges_per_stage=40)
    assert fast.tolist() == slow


@pytest.mark.parametrize("update", ["eq7", "exact"])
@pytest.mark.parametrize("linkage", ["minimum", "maximum", "centroid"])
def test_dispersion_is_the_average_distance_whatever_the_linkage(linkage, update):
    features, labels = people(40, identities=4), some_labels(40, 35)
    criterion = Criterion(linkage, "dispersion", 0.5, ranking="each_merge", dispersion_update=update)
    fast = merge_clusters(features, labels, criterion=criterion, merges_per_stage=25)
    slow = reference.merge_clusters(features.tolist(), labels.tolist(), criterion=criterion, merges_per_stage=25)
    assert fast.tolist() == slow


@pytest.mark.parametrize(("cost", "matrices"), [(0, [True]), (2000, [True, False]), (1e9, [True, False])])
@pytest.mark.parametrize("linkage", ["minimum", "maximum", "centroid", "average"])
def test_a_matrix_of_bounds_or_of_float32_gives_the_merges_of_a_float64_one(linkage, cost, matrices, monkeypatch):
    features, labels = people(400), some_labels(400, 300)
    criterion, made = replace(DBC.criterion, linkage=linkage), []
    in_double = merge_clusters(features, labels, criterion=criterion, merges_per_stage=100)
    matrix = ranked_again._Matrix
    monkeypatch.setattr(ranked_again, "_Matrix", lambda c, *, bounds: made.append(bounds) or matrix(c, bounds=bounds))
    monkeypatch.setattr(ranked_again, "DOUBLE_UP_TO", {"cpu": 0, "cuda": 0})
    monkeypatch.setattr(ranked_again, "PAIR_COST", cost)  # all pairs may be scored, some, none
    assert torch.equal(merge_clusters(features, labels, criterion=criterion, merges_per_stage=100), in_double)
    assert made == matrices


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("linkage", ["minimum", "maximum", "centroid", "average"])
def test_bounds_are_at_most_the_linkages_before_and_after_merges(linkage, distance, monkeypatch):
    monkeypatch.setattr(ranked_again, "DOUBLE_UP_TO", {"cpu": 0, "cuda": 0})
    sizes = torch.tensor([1] * 100 + [2] * 50 + [40] * 3)
    features = people(int(sizes.sum()), dim=256)
    features[150:180] = features[:30]  # distances of zero
    criterion = Criterion(linkage, "dispersion", 0.1, distance=distance, ranking="each_merge")
    matrix = ranked_again._Matrix(Clusters(features, sizes, criterion), bounds=True)
    for _ in range(3):
        alive = [c for c, united in enumerate(matrix.united) if united]
        pairs = [(a, b) for a in alive for b in alive if a < b]
        above = torch.tensor([matrix.linkage(a, b) - float(matrix.linkages[a, b]) for a, b in pairs])
        assert above.min() > -1e-12
        assert above.median() < 1e-3
        for _ in range(20):
            matrix.merge_closest()


# --- scipy ----------------------------------------------------------------------------------------------------------


def first_merges(tree, merges):
    """Clusters after the first rows of a scipy linkage; ``cut_tree`` orders by height, which centroids don't follow."""
    clusters = {k: [k] for k in range(len(tree) + 1)}
    for k, (a, b) in enumerate(tree[:merges, :2].astype(int)):
        clusters[len(tree) + 1 + k] = clusters.pop(a) + clusters.pop(b)
    names = {image: name for name, images in clusters.items() for image in images}
    return np.array([names[image] for image in range(len(tree) + 1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("linkage", "method"),
    [("minimum", "single"), ("maximum", "complete"), ("average", "average"), ("centroid", "centroid")],
)
def test_without_regularizer_ranking_again_is_scipys_clustering(linkage, method, dtype):
    features = people(150, dtype=dtype)
    ours = merge_clusters(
        features, torch.arange(150), criterion=Criterion(linkage, ranking="each_merge"), merges_per_stage=110
    )
    tree = hierarchy.linkage(features.double().numpy(), method)
    assert canonical(ours) == canonical(first_merges(tree, 110))


def test_minimum_linkage_without_regularizer_is_single_linkage_however_long_the_chains():
    # All merges fall within one tight group, which ranks 80,000 pairs before any other: more than are looked at first.
    generator = torch.Generator().manual_seed(0)
    group = torch.ones(401, 8) + 0.1 * torch.randn(401, 8, generator=generator)
    features = torch.nn.functional.normalize(torch.cat([group, torch.randn(99, 8, generator=generator)]))
    ours = merge_clusters(features, torch.arange(500), criterion=Criterion("minimum"), merges_per_stage=400)
    tree = hierarchy.linkage(features.double().numpy(), "single")
    assert canonical(ours) == canonical(first_merges(tree, 400))


# --- ties, chains, written out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_of_identical_images_the_smallest_labels_merge(name):
    # All pairs tie: (0, 1), then (0, 2). With a size or dispersion kept up to date 0 ∪ 1 is dearer, but not here:
    # BUC's sizes are frozen within a stage, and the dispersion of equal images is 0.
    features = torch.full((6, 4), 0.5)
    ours = merge_clusters(features, torch.arange(6), criterion=NAMED[name], merges_per_stage=2)
    assert ours.tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMED)
def test_of_equal_features_those_of_smallest_labels_merge(name, dtype):
    # Five pairs of twins, (0, 5), (1, 6), …, whose products do not all round alike.
    features = people(5, dim=2048, identities=5, dtype=dtype).repeat(2, 1)
    ours = merge_clusters(features, torch.arange(10), criterion=NAMED[name], merges_per_stage=2)
    assert ours.tolist() == [0, 1, 2, 3, 4, 0, 1, 5, 6, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMED)
def test_distances_that_differ_by_rounding_alone_tie(name, dtype):
    # Ten pairs, (0, 10), (1, 11), …, each the first with its coordinates in another order: sums in another order.
    generator = torch.Generator().manual_seed(0)
    pair = torch.nn.functional.normalize(torch.tensor([[1.0], [1.3]]) + torch.randn(1, 256, generator=generator))
    orders = [torch.randperm(256, generator=generator) for _ in range(10)]
    features = torch.cat([image[order][None] for image in pair for order in orders]).to(dtype)
    ours = merge_clusters(features, torch.arange(20), criterion=NAMED[name], merges_per_stage=1)
    assert ours.tolist() == [*range(10), 0, *range(10, 19)]


def test_a_union_that_ties_with_an_older_pair_is_placed_by_its_own_label():
    # 1 and 3 merge first; 0 is then at 40 degrees from 1 ∪ 3 as it was from 2 all along.
    criterion = Criterion("minimum", ranking="each_merge")
    ours = merge_clusters(on_circle(0, 55, -40, 40), torch.arange(4), criterion=criterion, merges_per_stage=2)
    assert ours.tolist() == [0, 0, 1, 0]


def test_follow_allows_chains_and_skip_does_not():
    # Gaps of 10, 12, 18 degrees. 1 is absorbed by 0 first; the next pair is (1, 2), the one after it (2, 3).
    features = on_circle(0, 10, 22, 40)
    follow = merge_clusters(features, torch.arange(4), criterion=Criterion("minimum"), merges_per_stage=2)
    skip = merge_clusters(
        features, torch.arange(4), criterion=Criterion("minimum", absorbed="skip"), merges_per_stage=2
    )
    assert follow.tolist() == [0, 0, 0, 1]
    assert skip.tolist() == [0, 0, 1, 1]


def test_sizes_are_frozen_when_pairs_are_ranked_once_and_kept_when_ranked_again():
    # Frozen, (1, 2) at 12 degrees is next; with 0 ∪ 1 counted as 2 images, (2, 3) at 13 degrees is.
    features, criterion = on_circle(0, 10, 22, 35), Criterion("minimum", "size", 0.1)
    once = merge_clusters(features, torch.arange(4), criterion=criterion, merges_per_stage=2)
    again = merge_clusters(
        features, torch.arange(4), criterion=replace(criterion, ranking="each_merge"), merges_per_stage=2
    )
    assert once.tolist() == [0, 0, 0, 1]
    assert again.tolist() == [0, 0, 1, 1]


def test_the_smaller_label_survives_and_labels_are_compacted_in_order():
    features, labels = on_circle(0, 90, 1, 180, 91), torch.tensor([3, 1, 0, 4, 2])
    ours = merge_clusters(features, labels, criterion=Criterion("minimum"), merges_per_stage=2)
    assert ours.tolist() == [0, 1, 0, 2, 1]  # 3 into 0 and 2 into 1 leave 0, 1, 4


def test_all_but_one_merge_leaves_one_cluster():
    for criterion in NAMED.values():
        ours = merge_clusters(people(30), torch.arange(30), criterion=criterion, merges_per_stage=29)
        assert ours.tolist() == [0] * 30


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_the_order_of_the_images_does_not_matter(name):
    features, labels = people(200), some_labels(200, 120)
    ours = merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=40)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    moved = merge_clusters(features[order], labels[order], criterion=NAMED[name], merges_per_stage=40)
    assert torch.equal(moved, ours[order])


@settings(max_examples=150, deadline=None)
@given(stage=stages(), criterion=criterion_strategy, seed=st.integers(0, 2**32 - 1))
def test_shuffling_the_images_shuffles_the_labels_whatever_ties(stage, criterion, seed):
    features, labels, merges = stage
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ours = merge_clusters(features, labels, criterion=criterion, merges_per_stage=merges)
    moved = merge_clusters(features[order], labels[order], criterion=criterion, merges_per_stage=merges)
    assert torch.equal(moved, ours[order])


@pytest.mark.parametrize("name", NAMED)
def test_float64_features_are_told_apart_beyond_float32(name):
    # Two pairs, 10 degrees apart but for a millionth of a degree, which float32 does not hold.
    features = on_circle(0, 10, 90, 100 - 1e-6)
    ours = merge_clusters(features, torch.arange(4), criterion=NAMED[name], merges_per_stage=1)
    assert ours.tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("name", ["buc", "dbc", "buc_released"])
def test_the_names_of_the_clusters_do_not_matter(name):
    features, labels = people(200), some_labels(200, 120)
    ours = merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=40)
    names = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    renamed = merge_clusters(features, names[labels], criterion=NAMED[name], merges_per_stage=40)
    assert canonical(renamed) == canonical(ours)


def test_under_skip_the_names_of_the_clusters_do_matter():
    # DBC's program: which of two merged clusters counts as absorbed is a matter of labels. Gaps of 10, 12, 18 degrees.
    features, skip = on_circle(0, 10, 22, 40), Criterion("minimum", absorbed="skip")
    forward = merge_clusters(features, torch.tensor([0, 1, 2, 3]), criterion=skip, merges_per_stage=2)
    backward = merge_clusters(features, torch.tensor([3, 2, 1, 0]), criterion=skip, merges_per_stage=2)
    assert canonical(forward) == [0, 0, 1, 1]
    assert canonical(backward) == [0, 0, 0, 1]


@pytest.mark.usefixtures("more_than_double")
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_size_does_not_matter(name, dtype, monkeypatch):
    features, labels = people(300, dtype=dtype), some_labels(300, 150)
    features[50:100] = features[:50]
    whole = merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=60)
    for rows, size in ((7, 2**25), (64, 2**25), (64, 2**14)):
        monkeypatch.setattr(clusters_module, "BLOCK", rows)
        monkeypatch.setattr(clusters_module, "BLOCK_BYTES", size)
        assert torch.equal(merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=60), whole)


@pytest.mark.usefixtures("more_than_double")
def test_the_number_of_threads_does_not_matter():
    features, labels, threads = people(1500, dim=256), some_labels(1500, 900), torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append([merge_clusters(features, labels, criterion=c, merges_per_stage=75) for c in NAMED.values()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


@pytest.mark.usefixtures("more_than_double")
@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("name", NAMED)
def test_cuda_merges_as_the_cpu_does(name, device):
    features, labels = people(1500, dim=256), some_labels(1500, 900)
    ours = merge_clusters(features.to(device), labels.to(device), criterion=NAMED[name], merges_per_stage=75)
    assert ours.device.type == device
    assert torch.equal(ours.cpu(), merge_clusters(features, labels, criterion=NAMED[name], merges_per_stage=75))


@pytest.mark.parametrize("name", NAMED)
def test_inputs_are_left_as_they_were(name):
    features, labels = people(50, dtype=torch.float64), some_labels(50, 30)
    before = features.clone(), labels.clone()
    ours = merge_clusters(features.requires_grad_(), labels, criterion=NAMED[name], merges_per_stage=5)
    assert torch.equal(features, before[0])
    assert torch.equal(labels, before[1])
    assert ours.dtype == torch.int64
    assert sorted(set(ours.tolist())) == list(range(25))


# --- float32 bounds and what happens when they are too wide ---------------------------------------------------------


@pytest.mark.parametrize("name", ["buc", "buc_released", "dbc_released"])
def test_collapsed_features_are_told_apart(name):
    # So close together that float32 products cannot rank them.
    spread = torch.nn.functional.normalize(1 + 3e-3 * people(60, dim=64, dtype=torch.float64)).float()
    fast = merge_clusters(spread, some_labels(60, 50), criterion=NAMED[name], merges_per_stage=10)
    slow = reference.merge_clusters(
        spread.tolist(), some_labels(60, 50).tolist(), criterion=NAMED[name], merges_per_stage=10
    )
    assert fast.tolist() == slow


@pytest.mark.parametrize("linkage", ["minimum", "maximum", "centroid"])
@pytest.mark.parametrize(("precision", "at_most"), [("ieee", 1e-4), ("tf32", 2e-3), ("bf16", 1e-2)])
def test_entries_of_a_quick_product_are_off_by_less_than_the_slack(precision, at_most, linkage):
    clusters = Clusters(people(300, dim=512), torch.tensor([1] * 100 + [2] * 100), Criterion(linkage))

    def entries(points):
        blocks = (block for _, _, block in clusters.linkage_blocks(points))
        return torch.cat([block[block.isfinite()].double() for block in blocks])

    quick = clusters.points(precision)
    assert 0 < (entries(quick) - entries(clusters.points())).abs().max() < quick.slack < at_most


@pytest.mark.parametrize(("precision", "bits"), products.BITS.items())
def test_screened_features_have_the_bits_that_the_product_keeps(precision, bits):
    values = people(50, dim=64)
    rounded = products.screening(values, torch.ones(50), precision, 1.0).values
    mantissa = torch.frexp(rounded).mantissa * 2**bits
    assert torch.equal(mantissa, mantissa.round())
    assert ((rounded - values).abs() <= values.abs() * 2.0**-bits).all()


@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_a_process_that_allows_imprecise_products_gets_the_same_merges(allowed):
    # On a CPU with matrix units "medium" multiplies with eight bits.
    features, labels = people(700, dim=256), some_labels(700, 500)
    ours = [merge_clusters(features, labels, criterion=c, merges_per_stage=50) for c in NAMED.values()]
    torch.set_float32_matmul_precision(allowed)
    try:
        again = [merge_clusters(features, labels, criterion=c, merges_per_stage=50) for c in NAMED.values()]
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))


@pytest.mark.parametrize("recipe", [BUC, DBC])
def test_products_of_less_than_float32_precision_are_noticed(recipe, monkeypatch):
    # Eight bits of each factor where 24 are asked for; the float64 product is left as it is.
    product, seen = torch.addmm, []

    def bfloat16_product(base, a, b, **options):
        seen.append(a.dtype)
        if a.dtype == torch.float32:
            a, b = a.bfloat16().float(), b.bfloat16().float()
        return product(base, a, b, **options)

    monkeypatch.setattr(torch, "addmm", bfloat16_product)
    monkeypatch.setattr(products, "quickest", lambda device: "ieee")
    monkeypatch.setattr(ranked_again, "DOUBLE_UP_TO", {"cpu": 0, "cuda": 0})
    features, stage = people(80, dim=8), {"criterion": recipe.criterion, "merges_per_stage": 30}
    fast = merge_clusters(features, torch.arange(80), **stage)
    assert fast.tolist() == reference.merge_clusters(features.tolist(), list(range(80)), **stage)
    assert seen[0] == torch.float32
    assert seen[-1] == torch.float64


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["buc", "dbc_released"])
@pytest.mark.parametrize("num_clusters", [12_000, 6000])
def test_a_stage_never_holds_all_pairs(name, num_clusters):
    peak = peak_bytes(Row(name, 12_000, 8, clusters=num_clusters), "cpu", "ours")
    assert peak / 2**20 < 250  # all pairs of images in float32 are 549


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "labels", "merges", "message"),
    [
        (torch.ones(4), torch.arange(4), 1, "features must be"),
        (torch.ones(0, 2), torch.arange(0), 1, "features must be"),
        (torch.ones(4, 2).half(), torch.arange(4), 1, "features must be"),
        (torch.ones(4, 2).long(), torch.arange(4), 1, "features must be"),
        (torch.ones(4, 2), torch.arange(3), 1, "pseudo_labels must be"),
        (torch.ones(4, 2), torch.arange(4)[:, None], 1, "pseudo_labels must be"),
        (torch.ones(4, 2), torch.arange(4).int(), 1, "pseudo_labels must be"),
        (torch.ones(4, 2), torch.tensor([0, 1, 3, 3]), 1, "no image has label 2"),
        (torch.ones(4, 2), torch.tensor([-1, 0, 1, 2]), 1, r"lie in \[-1, 2\], but 4 images allow only 0 to 3"),
        (torch.ones(4, 2), torch.tensor([0, 1, 2, 2**40]), 1, "allow only 0 to 3"),
        (torch.tensor([[1.0, 0.0], [torch.nan, 1.0]]), torch.arange(2), 1, "finite"),
        (torch.tensor([[1.0, 0.0], [torch.inf, 1.0]]).double(), torch.arange(2), 1, "finite"),
        (torch.tensor([[1.0, 0.0], [-torch.inf, 1.0]]), torch.arange(2), 1, "finite"),
        (torch.ones(4, 2), torch.tensor([0, 1, 2, 2]), 3, "3 clusters allow 1 to 2"),
        (torch.ones(4, 2), torch.arange(4), 0, "allow"),
        (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), 1, "1 clusters"),
    ],
)
def test_what_is_no_stage_is_refused(features, labels, merges, message):
    with pytest.raises(ValueError, match=message):
        merge_clusters(features, labels, criterion=BUC.criterion, merges_per_stage=merges)
