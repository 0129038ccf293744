"""Ranking: by hand, against the released program's figures, against slow loops, scikit-learn and torchmetrics."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_evaluation import ranking_reference
from sklearn.metrics import auc, average_precision_score, precision_recall_curve
from torchmetrics.functional.retrieval import retrieval_average_precision

from reprolib import evaluation
from reprolib.assessment import metrics_of
from reprolib.datasets import LabelledTracklets
from reprolib.evaluation import rank_from_distances, rank_gallery

GOLDEN = Path(__file__).parent / "golden"
IDS = ("query_pids", "gallery_pids", "query_camids", "gallery_camids")
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "eval_plain.npz")


def ids_of(golden) -> dict:
    return dict(zip(IDS, (golden[k] for k in ("query_ids", "gallery_ids", "query_cams", "gallery_cams")), strict=True))


def ids_apart(query_pids, gallery_pids) -> dict:
    """Ids with queries and gallery in different cameras."""
    return dict(zip(IDS, (query_pids, gallery_pids, [0] * len(query_pids), [1] * len(gallery_pids)), strict=True))


def random_ids(rng, num_query, num_gallery, *, pids=4, camids=3) -> dict:
    sizes = (num_query, num_gallery, num_query, num_gallery)
    return {
        name: rng.integers(0, high, n) for name, n, high in zip(IDS, sizes, [pids, pids, camids, camids], strict=True)
    }


def assert_same(a, b, *, atol=1e-12):
    np.testing.assert_allclose(a.cmc, b.cmc, atol=atol)
    np.testing.assert_allclose((a.mean_ap, a.mean_ap_step), (b.mean_ap, b.mean_ap_step), atol=atol)
    assert a.num_valid_queries == b.num_valid_queries


def test_features_that_are_much_alike_are_told_apart(device):
    rng = np.random.default_rng(0)
    alike = torch.from_numpy(1 + 1e-3 * rng.standard_normal((300, 64)))
    features = torch.nn.functional.normalize(alike)
    ids = random_ids(rng, 60, 240, pids=20)
    exact = rank_gallery(features[:60], features[60:], **ids)
    single = features.float().to(device)
    ours = rank_gallery(single[:60], single[60:], **ids)
    rounded = rank_gallery(single[:60].double(), single[60:].double(), **ids)
    assert ours.mean_ap == pytest.approx(rounded.mean_ap, abs=1e-3)
    assert rounded.mean_ap == pytest.approx(exact.mean_ap, abs=0.02)


def test_one_long_vector_does_not_hide_how_the_others_differ(device):
    rng = np.random.default_rng(0)
    pids, camids = np.arange(400) % 100, np.arange(400) // 100
    features = 100 + 0.1 * rng.standard_normal((100, 128))[pids] + 0.08 * rng.standard_normal((400, 128))
    features = torch.from_numpy(np.concatenate([features, 2 * features[:1]]))
    ids = {"query_pids": pids[:100], "gallery_pids": [*pids[100:], -5]}
    ids |= {"query_camids": camids[:100], "gallery_camids": [*camids[100:], 1]}
    exact = rank_gallery(features[:100], features[100:], **ids)
    single = features.float().to(device)
    assert rank_gallery(single[:100], single[100:], **ids).mean_ap == pytest.approx(exact.mean_ap, abs=1e-3)


def test_finite_distances_whose_sum_is_not_are_ranked():
    distmat = np.full((1, 40), 2e37, np.float32)
    assert rank_from_distances(distmat, **ids_apart([0], [0] + [1] * 39)).num_valid_queries == 1


def test_five_by_five_by_hand():
    distmat = np.array(
        [
            [1, 2, 3, 4, 5],  # the match, on the diagonal, has rank 1
            [1, 2, 3, 4, 5],  # 2
            [1, 2, 3, 4, 5],  # 3
            [1, 2, 3, 5, 4],  # 5
            [5, 4, 3, 2, 1],  # 1
        ]
    )
    ranking = rank_from_distances(distmat, **ids_apart(range(5), range(5)), top_k=6)
    np.testing.assert_allclose(ranking.cmc, [0.4, 0.6, 0.8, 0.8, 1, 1])
    assert ranking.mean_ap_step == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 5 + 1) / 5)
    assert ranking.mean_ap == pytest.approx((1 + 1 / 4 + 1 / 6 + 1 / 10 + 1) / 5)


def test_both_average_precisions_by_hand():
    # Matches at ranks 1 and 3 of 4. Precision falls 1 -> 1 for the first, 1/2 -> 2/3 for the second.
    ranking = rank_from_distances(np.array([[0.1, 0.2, 0.3, 0.4]]), **ids_apart([7], [7, 1, 7, 2]), top_k=1)
    assert ranking.mean_ap == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert ranking.mean_ap_step == pytest.approx((1 + 2 / 3) / 2)
    assert ranking.cmc.tolist() == [1]
    assert repr(ranking) == "Ranking(rank-1 100.0%, mAP 79.2% (83.3% by step sum), 1 queries)"


def test_same_pid_and_camid_is_left_out_but_same_pid_in_another_camera_is_not():
    ids = dict(zip(IDS, ([7], [7, 1, 7], [0], [0, 0, 1]), strict=True))
    ranking = rank_from_distances(np.array([[0.1, 0.2, 0.3]]), **ids, top_k=3)
    assert ranking.cmc.tolist() == [0, 1, 1]
    assert ranking.mean_ap_step == 0.5


def test_a_query_of_whom_nobody_knows_the_identity_is_skipped():
    ids = dict(zip(IDS, ([7, -1], [7, -1], [0, 0], [1, 1]), strict=True))
    assert rank_from_distances(np.array([[0.1, 0.2]] * 2), **ids, top_k=1).num_valid_queries == 1


def test_a_query_without_a_match_in_another_camera_is_skipped():
    ids = dict(zip(IDS, ([7, 8, 9], [7, 8, 1], [0, 0, 0], [1, 0, 1]), strict=True))
    ranking = rank_from_distances(np.array([[0.1, 0.2, 0.3]] * 3), **ids, top_k=1)
    assert (ranking.num_valid_queries, ranking.mean_ap) == (1, 1)
    assert ranking.cmc.tolist() == [1]


def test_distances_match_the_released_program(golden, device):
    distmat = torch.from_numpy(golden["distmat"]).to(device)
    ranking = rank_from_distances(distmat, **ids_of(golden), top_k=100)
    np.testing.assert_allclose(ranking.cmc, golden["cmc"], atol=1e-6)
    np.testing.assert_allclose(ranking.mean_ap, golden["mAP"], atol=1e-6)
    np.testing.assert_allclose(ranking.mean_ap_step, golden["torchreid_mAP"], atol=1e-6)
    assert ranking.num_valid_queries == len(distmat)


def test_average_precision_of_every_query_matches_the_released_program(golden):
    ids = ids_of(golden)
    for i, expected in enumerate(golden["ap_per_query"]):
        one = {name: ids[name][i : i + 1] if name.startswith("query") else ids[name] for name in IDS}
        ranking = rank_from_distances(golden["distmat"][i : i + 1], **one)
        np.testing.assert_allclose(ranking.mean_ap, expected, atol=1e-6)


def test_features_match_the_released_program(golden, device):
    features = (torch.from_numpy(golden[k]).to(device) for k in ("query_feats", "gallery_feats"))
    ranking = rank_gallery(*features, **ids_of(golden), top_k=100)
    np.testing.assert_allclose(ranking.cmc, golden["cmc"], atol=1e-6)
    np.testing.assert_allclose(ranking.mean_ap, golden["mAP"], atol=1e-6)


@st.composite
def rankings(draw):
    """Distances with many ties, or none, and ids with junk and queries that are not valid."""
    num_query, num_gallery = draw(st.integers(1, 6)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10_000]))
    distmat = rng.integers(0, levels, (num_query, num_gallery)) / 4 - 0.5
    return distmat, random_ids(rng, num_query, num_gallery)


@pytest.mark.parametrize("few_matches", [0, 32])
@settings(deadline=None, max_examples=150)
@given(case=rankings(), top_k=st.integers(1, 16))
def test_ranking_by_counting_and_by_sorting_matches_a_loop_over_queries_also_with_ties(few_matches, case, top_k):
    distmat, ids = case
    cmc, aps, aps_step = ranking_reference(distmat, *ids.values(), top_k=top_k)
    if not aps:
        with pytest.raises(ValueError, match="no query is valid"):
            rank_from_distances(distmat, **ids, top_k=top_k)
        return
    with patch.object(evaluation, "_FEW_MATCHES", few_matches):
        ranking = rank_from_distances(distmat, **ids, top_k=top_k)
    np.testing.assert_allclose(ranking.cmc, cmc)
    np.testing.assert_allclose((ranking.mean_ap, ranking.mean_ap_step), (np.mean(aps), np.mean(aps_step)))
    assert ranking.num_valid_queries == len(aps)


@pytest.mark.parametrize("levels", [4, 10**9])
def test_average_precisions_match_scikit_learn_also_with_ties(levels):
    rng = np.random.default_rng(levels)
    distmat, relevant = rng.integers(0, levels, (8, 60)) / levels, rng.random(60) < 0.2
    ranking = rank_from_distances(distmat, **ids_apart([1] * 8, relevant.astype(int)))
    curves = [precision_recall_curve(relevant, -row) for row in distmat]
    assert ranking.mean_ap == pytest.approx(
        np.mean([auc(recall, precision) for precision, recall, _ in curves]), abs=1e-6
    )
    assert ranking.mean_ap_step == pytest.approx(
        np.mean([average_precision_score(relevant, -row) for row in distmat]), abs=1e-6
    )


def test_step_average_precision_matches_torchmetrics_without_ties():
    rng = np.random.default_rng(0)
    distmat, relevant = rng.permuted(np.tile(np.arange(60.0), (8, 1)), axis=1), rng.random(60) < 0.2
    ranking = rank_from_distances(distmat, **ids_apart([1] * 8, relevant.astype(int)))
    expected = [retrieval_average_precision(torch.from_numpy(60 - row), torch.from_numpy(relevant)) for row in distmat]
    assert ranking.mean_ap_step == pytest.approx(np.mean(expected), abs=1e-6)


def test_features_are_ranked_by_euclidean_distance_whatever_their_length(device):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(20, 6)), rng.normal(size=(90, 6)) * rng.uniform(0.2, 3, (90, 1))
    ids = random_ids(rng, 20, 90)
    distmat = np.linalg.norm(query[:, None] - gallery, axis=2)
    ranking = rank_gallery(*(torch.from_numpy(f).to(device) for f in (query, gallery)), **ids)
    assert_same(ranking, rank_from_distances(distmat, **ids))


def test_a_process_that_allows_imprecise_products_ranks_by_float32(monkeypatch):
    product, seen = torch.addmm, []

    def watched(*arguments, **options):
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return product(*arguments, **options)

    monkeypatch.setattr(torch, "addmm", watched)
    rng = np.random.default_rng(0)
    features = [torch.from_numpy(rng.normal(size=(n, 6))).float() for n in (20, 90)]
    torch.set_float32_matmul_precision("medium")
    try:
        rank_gallery(*features, **random_ids(rng, 20, 90))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["ieee"]


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    distmat, ids = rng.random((23, 40)), random_ids(rng, 23, 40, pids=9)
    whole = rank_from_distances(distmat, **ids)
    for held in (1, 41, 200):
        monkeypatch.setattr(evaluation, "_BLOCK_DISTANCES", held)
        assert_same(rank_from_distances(distmat, **ids), whole)


def test_order_of_the_gallery_does_not_matter_without_ties():
    rng = np.random.default_rng(0)
    distmat, ids, order = rng.random((15, 50)), random_ids(rng, 15, 50), rng.permutation(50)
    shuffled = {name: v[order] if name.startswith("gallery") else v for name, v in ids.items()}
    assert_same(rank_from_distances(distmat[:, order], **shuffled), rank_from_distances(distmat, **ids))


def test_ties_take_the_order_of_the_gallery_for_cmc_and_one_threshold_for_ap():
    first, last = (
        rank_from_distances(np.ones((1, 4)), **ids_apart([1], pids), top_k=4) for pids in ([1, 0, 0, 0], [0, 0, 0, 1])
    )
    assert first.cmc.tolist() == [1, 1, 1, 1]
    assert last.cmc.tolist() == [0, 0, 0, 1]
    assert first.mean_ap == last.mean_ap == (1 + 1 / 4) / 2
    assert first.mean_ap_step == last.mean_ap_step == 1 / 4


def test_inputs_are_left_alone_and_may_be_tensors_arrays_or_lists(device):
    rng = np.random.default_rng(0)
    distmat, ids = rng.random((6, 20)), random_ids(rng, 6, 20)
    before = distmat.copy()
    expected = rank_from_distances(distmat, **ids)
    with_strides = {name: torch.from_numpy(v).to(device).repeat_interleave(2)[::2] for name, v in ids.items()}
    assert_same(rank_from_distances(torch.from_numpy(distmat).to(device), **with_strides), expected)
    assert_same(
        rank_from_distances(distmat, **{name: v.astype(np.int32).tolist() for name, v in ids.items()}), expected
    )
    ids["gallery_pids"].setflags(write=False)
    assert_same(rank_from_distances(distmat, **ids), expected)
    np.testing.assert_array_equal(distmat, before)


def test_features_with_a_gradient_or_in_half_precision_are_ranked():
    rng = np.random.default_rng(0)
    query, gallery = (torch.from_numpy(rng.normal(size=(n, 4))).bfloat16().requires_grad_() for n in (5, 30))
    ids = random_ids(rng, 5, 30)
    assert_same(rank_gallery(query, gallery, **ids), rank_gallery(query.float(), gallery.float(), **ids))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query_pids": [1, 2, 3]}, "query_pids must be 2 integers"),
        ({"gallery_camids": [1, 1]}, "gallery_camids must be 3 integers"),
        ({"gallery_pids": [1.0, 2.0, 3.0]}, "gallery_pids must be 3 integers"),
        ({"gallery_pids": [8, 8, 9]}, "no query is valid"),
        ({"gallery_camids": [0, 0, 0]}, "no query is valid"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_ids_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        rank_from_distances(np.eye(2, 3), **ids_apart([1, 2], [1, 2, 3]) | changed)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_set_is_refused(shape):
    with pytest.raises(ValueError, match="may be empty"):
        rank_from_distances(np.zeros(shape), **ids_apart([1] * shape[0], [1] * shape[1]))
    with pytest.raises(ValueError, match="may be empty"):
        rank_gallery(torch.zeros(shape[0], 4), torch.zeros(shape[1], 4), **ids_apart([1] * shape[0], [1] * shape[1]))


def test_arrays_may_lie_backwards():
    distmat, ids = np.arange(6.0).reshape(2, 3), ids_apart([1, 2], [2, 1, 2])
    backwards = {name: np.array(values)[::-1] for name, values in ids.items()}
    ours, turned = rank_from_distances(distmat, **ids), rank_from_distances(distmat[::-1, ::-1], **backwards)
    assert turned.mean_ap == ours.mean_ap


def test_shapes_that_are_no_distances_or_features_are_refused():
    with pytest.raises(ValueError, match=r"must have shape \(Q, G\)"):
        rank_from_distances(np.zeros(3), **ids_apart([1], [1, 2, 3]))
    with pytest.raises(ValueError, match=r"must have shapes \(Q, d\) and \(G, d\)"):
        rank_gallery(torch.zeros(1, 4), torch.zeros(3, 5), **ids_apart([1], [1, 2, 3]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_distances_that_are_not_finite_are_refused(bad, column):
    distmat = np.array([[0.1, 0.2, 0.3]])
    distmat[0, column] = bad
    with pytest.raises(ValueError, match="not all finite"):
        rank_from_distances(distmat, **dict(zip(IDS, ([7], [7, 7, 1], [0], [1, 0, 1]), strict=True)))


def test_float64_features_are_ranked_in_float64():
    # The match is nearer by a hundred-millionth, which float32 does not hold.
    query, gallery = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0], [1e-8, 1.0]]).double()
    ranking = rank_gallery(query, gallery, **ids_apart([1], [2, 1]))
    assert ranking.cmc[0] == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad):
    query, gallery = torch.ones(2, 4), torch.ones(5, 4)
    gallery[3, 2] = bad
    with pytest.raises(ValueError, match="not all finite"):
        rank_gallery(query, gallery, **ids_apart([1, 2], [1, 2, 3, 4, 5]))


def test_rank_k_counts_the_first_k_of_the_gallery():
    query = LabelledTracklets(["q.jpg"], [0, 1], [0], [7])
    gallery = LabelledTracklets(list("abcdefghijklmnopqrstuvwxy"), range(26), [1] * 25, [1] * 5 + [7] + [1] * 19)
    found = metrics_of((torch.zeros(1, 1), torch.arange(25.0)[:, None]), query, gallery)  # the sixth is right
    assert [found[f"rank-{k}"] for k in (1, 5, 10, 20)] == [0, 0, 1, 1]
