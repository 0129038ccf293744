"""The lookup table and the repelled loss: by hand, against the released programs' figures, and against slow loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_evaluation import loss_reference, means_reference, update_reference

from reprolib.memory import LookupTable, cluster_means, repelled_loss

GOLDEN = Path(__file__).parent / "golden"
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return request.param


def filled(weight, **kwargs) -> LookupTable:
    """A table that holds a copy of ``weight`` (C, d)."""
    weight = torch.as_tensor(weight)
    table = LookupTable(*weight.shape, **kwargs)
    table.weight = weight.clone().to(table.weight.device)
    return table


@pytest.mark.parametrize("name", ["loss_zero_dup_drop", "loss_oneclass"])
def test_batches_in_a_row_match_the_released_program(name, device):
    golden = np.load(GOLDEN / f"{name}.npz")
    table = LookupTable(*golden["V0"].shape, device=device)
    assert torch.equal(table.weight.cpu(), torch.from_numpy(golden["V0"]))
    for i in range(len(golden["loss"])):
        embedding = torch.from_numpy(golden["inputs"][i]).to(device).requires_grad_()
        labels = torch.from_numpy(golden["targets"][i])
        loss = repelled_loss(embedding, labels, table, temperature=0.1)
        loss.backward()
        table.update(embedding, labels)
        np.testing.assert_allclose(loss.item(), golden["loss"][i], atol=1e-5)
        np.testing.assert_allclose(embedding.grad.cpu(), golden["grad_inputs"][i], atol=1e-5)
        np.testing.assert_allclose(table.weight.cpu(), golden["V_after"][i], atol=1e-5)


def test_gradient_with_an_identity_table_is_softmax_minus_one_hot():
    embedding = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([5, 0, 0, 2])
    repelled_loss(embedding, labels, torch.eye(6), temperature=0.5).backward()
    expected = (torch.softmax(embedding / 0.5, dim=1) - F.one_hot(labels, 6)) / 0.5 / 4
    torch.testing.assert_close(embedding.grad, expected.detach())


def test_loss_of_a_table_of_zeros_is_the_logarithm_of_its_rows():
    loss = repelled_loss(torch.randn(3, 5), torch.tensor([0, 6, 3]), LookupTable(7, 5), temperature=0.1)
    torch.testing.assert_close(loss, torch.tensor(7.0).log())


def test_loss_of_a_single_cluster_is_zero():
    assert repelled_loss(torch.randn(3, 5), torch.zeros(3, dtype=torch.int64), torch.randn(1, 5), temperature=0.1) == 0


def test_no_gradient_reaches_the_table():
    weight = torch.randn(7, 5, requires_grad=True)
    embedding = torch.randn(3, 5, requires_grad=True)
    repelled_loss(embedding, torch.tensor([0, 6, 3]), weight, temperature=0.1).backward()
    assert weight.grad is None
    assert embedding.grad.abs().sum() > 0
    assert not LookupTable(2, 5).weight.requires_grad


def test_an_update_by_hand():
    table = filled([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]], normalize=False)
    table.update(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([0, 1]))
    assert table.weight.tolist() == [[0.5, 1.0], [0.5, 0.5], [3.0, 4.0]]


def test_a_label_twice_in_a_batch_is_updated_twice_in_order():
    table = LookupTable(3, 2, normalize=False)
    table.update(torch.tensor([[4.0, 0.0], [1.0, 1.0], [0.0, 8.0]]), torch.tensor([2, 0, 2]))
    assert table.weight.tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 4.0]]


@st.composite
def batches(draw):
    """A table (C, d), a batch (B, d) and its labels (B,): from no duplicate to nothing else, with rows of zeros."""
    num_clusters, dim, size = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = draw(st.lists(st.integers(0, num_clusters - 1), min_size=size, max_size=size))
    table = rng.normal(size=(num_clusters, dim)) * rng.integers(0, 2, (num_clusters, 1))
    return table, rng.normal(size=(size, dim)) * rng.integers(0, 2, (size, 1)), np.array(labels)


@settings(deadline=None)
@given(batches(), st.booleans())
def test_update_matches_a_loop_over_the_batch(batch, normalize):
    weight, embedding, labels = batch
    table = filled(weight, normalize=normalize)
    table.update(torch.from_numpy(embedding), torch.from_numpy(labels))
    expected = update_reference(weight, embedding, labels, normalize=normalize)
    np.testing.assert_allclose(table.weight, expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(batches())
def test_loss_matches_a_loop_over_samples_and_clusters(batch):
    weight, embedding, labels = batch
    loss = repelled_loss(
        torch.from_numpy(embedding), torch.from_numpy(labels), torch.from_numpy(weight), temperature=0.7
    )
    np.testing.assert_allclose(loss, loss_reference(embedding, labels, weight, 0.7), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-13, 1e-30])
def test_tiny_rows_are_normalized_as_torch_does(scale):
    embedding = torch.full((1, 4), scale)
    table = LookupTable(2, 4)
    table.update(embedding, torch.tensor([1]))
    torch.testing.assert_close(table.weight[1:], F.normalize(embedding / 2, dim=1), rtol=1e-6, atol=0)
    assert not table.weight[0].any()


def test_update_leaves_its_inputs_alone(device):
    embedding, labels = torch.randn(5, 3, device=device, requires_grad=True), torch.tensor([1, 0, 1, 1, 2])
    before = embedding.detach().clone()
    LookupTable(3, 3, device=device).update(embedding, labels)
    assert torch.equal(embedding, before)
    assert labels.tolist() == [1, 0, 1, 1, 2]
    assert embedding.grad is None


def test_labels_may_lie_on_the_host_or_on_the_device(device):
    embedding, labels = torch.randn(5, 3, device=device), torch.tensor([1, 0, 1, 1, 2])
    tables = [LookupTable(3, 3, device=device) for _ in range(2)]
    for table, given_labels in zip(tables, (labels, labels.to(device)), strict=True):
        table.update(embedding, given_labels)
    torch.testing.assert_close(tables[0].weight, tables[1].weight)
    losses = [repelled_loss(embedding, y, tables[0], temperature=0.1) for y in (labels, labels.to(device))]
    assert losses[0] == losses[1]


def test_half_precision_embeddings_update_a_full_precision_table():
    embedding, labels = torch.randn(4, 3).bfloat16(), torch.tensor([1, 0, 1, 1])
    tables = [LookupTable(2, 3) for _ in range(2)]
    tables[0].update(embedding, labels)
    tables[1].update(embedding.float(), labels)
    assert tables[0].weight.dtype == torch.float32
    assert torch.equal(tables[0].weight, tables[1].weight)


def test_stale_means_match_the_table_of_the_released_program():
    golden = np.load(GOLDEN / "meminit_dbc.npz")
    embeddings = torch.from_numpy(golden["fcs"])
    stale = cluster_means(embeddings, torch.from_numpy(golden["labels_in"]))
    np.testing.assert_allclose(stale, golden["V"], atol=1e-6)
    repaired = cluster_means(embeddings, torch.from_numpy(golden["labels_out"]))
    assert len(stale) - len(repaired) == golden["m"]


def test_cluster_means_match_a_loop(device):
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(40, 5)), rng.permutation(np.arange(40) % 7)
    expected = means_reference(embeddings, labels)
    given = torch.from_numpy(embeddings).to(device), torch.from_numpy(labels)
    np.testing.assert_allclose(cluster_means(*given).cpu(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("embedding", "labels", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 1]), r"takes \(B, 3\)"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), r"takes \(B, 3\)"),
        (torch.zeros(2, 3), torch.tensor([0]), "2 embeddings"),
        (torch.zeros(0, 3), torch.tensor([], dtype=torch.int64), "0 embeddings"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "int64"),
        (torch.zeros(2, 3), torch.tensor([0, 2]), "rows 0 to 1"),
        (torch.zeros(2, 3), torch.tensor([-1, 1]), "rows 0 to 1"),
    ],
)
def test_a_batch_that_does_not_fit_the_table_is_refused(embedding, labels, message):
    table = LookupTable(2, 3)
    with pytest.raises(ValueError, match=message):
        table.update(embedding, labels)
    with pytest.raises(ValueError, match=message):
        repelled_loss(embedding, labels, table, temperature=0.1)
    assert not table.weight.any()


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        repelled_loss(torch.zeros(1, 3), torch.tensor([0]), torch.zeros(2, 3), temperature=temperature)


def test_a_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="0 rows"):
        LookupTable(0, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 2, 2], "no image has label 1"), ([0, 1], "do not fit"), ([0, -1, 0], "negative"), ([0.0, 1, 1], "int64")],
)
def test_means_of_labels_that_are_not_compact_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        cluster_means(torch.zeros(3, 2), torch.tensor(labels))
