"""The benchmarks: every piece is measured beside what it is compared with, on inputs that do the same work."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from scipy.cluster import hierarchy

from benchmarks import inputs, measure, pieces
from benchmarks.rows import CPU, CUDA, LITERAL, QUICK, SCIPY, SKLEARN, TORCHMETRICS, Row, rows, without_references
from reprolib import paths
from reprolib.timings import load_benchmark

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_clear_line():
    with pytest.raises(typer.BadParameter, match="this machine has 0 CUDA devices"):
        measure.open_device("cuda")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(folder)]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    (file,) = folder.glob("*.json")
    return load_benchmark(file), done.stdout


def test_one_command_measures_every_row_and_prints_it(measured):
    benchmark, printed = measured
    wanted = rows(QUICK)
    assert [(r["piece"], r["images"], r["clusters"], r["labels"]) for r in benchmark.rows] == [
        (row.piece, row.images, row.clusters, row.labels) for row in wanted
    ]
    assert all(row.piece in printed for row in wanted)
    assert {"cores", "threads", "versions", "commit", "date", "device"} <= benchmark.provenance.keys()


def test_every_row_has_medians_of_all_repetitions_beside_the_product_and_the_others(measured):
    for row in measured[0].rows:
        product = {"product"} if row["piece"] != "table update" else set()
        assert row["seconds"].keys() == {"ours", *product, *row["against"]}
        assert row["repetitions"] >= 5 or row["images"] >= QUICK.large
        for name, times in row["times"].items():
            assert len(times) == row["repetitions"]
            assert row["seconds"][name] == pytest.approx(np.median(times), abs=1e-6)
            assert row["seconds"][name] > 0


def test_every_stage_is_checked_against_products_in_float64(measured):
    checked = [row["exact"] for row in measured[0].rows if row["exact"] is not None]
    assert len(checked) > 10
    assert all(checked)


@linux
def test_memory_of_every_call_is_measured(measured):
    for row in measured[0].rows:
        assert row["peak_bytes"].keys() == row["seconds"].keys()
        assert all(0 <= peak < 2**28 for peak in row["peak_bytes"].values())


@linux
def test_memory_is_what_a_call_holds_over_its_inputs():
    # The product of 2,000 with 2,000 rows takes 15.3 MiB, whatever this process holds; the system counts in batches.
    held = torch.ones(2**26)
    peak = measure.peak_bytes(Row("buc", 2000, 64, clusters=2000), "cpu", "product")
    assert 14.5 < peak / 2**20 < 24
    assert held.sum() > 0


def test_calls_take_turns():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "ab"}
    times = measure.in_turns(calls, 3, "cpu")
    assert seen == ["a", "b"] * 3
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}


def test_the_table_of_the_full_run_has_what_it_promises():
    full = rows(CPU)
    stages = {(r.piece, r.images, r.clusters) for r in full if r.dim == 2048}
    for piece in ("buc", "dbc_released", "dbc"):
        assert {(piece, 12_936, 12_936), (piece, 12_936, 6468)} <= stages
    assert ("buc", 50_000, 50_000) in stages
    assert {(r.images, r.queries) for r in full if r.piece == "ranking"} >= {(15_913, 3368)}
    assert {r.labels for r in full if r.piece == "table update"} == {"distinct", "pairs", "same"}
    assert any(r.piece == "buc" and r.images == 2000 and r.against == (LITERAL,) for r in full)
    assert ("buc", 1_000_000, 512) in {(r.piece, r.images, r.dim) for r in rows(CUDA)}


def test_rows_can_be_left_out():
    left = rows(without_references(CPU), up_to=4000)
    assert {r.images for r in left} == {1000, 2000, 4000, 16}
    assert {r.piece for r in left if r.against} == {"table update"}


def test_features_are_unit_rows_in_groups_and_depend_on_the_seed_alone():
    features, identities = inputs.features(300, 128)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(300))
    assert (features >= 0).all()
    distances = torch.cdist(features, features) + torch.diag(torch.full((300,), torch.inf))
    nearest = distances.argmin(1)
    assert (identities[nearest] == identities).float().mean() > 0.8
    assert torch.equal(inputs.features(300, 128)[0], features)
    assert not torch.equal(inputs.features(300, 128, seed=1)[0], features)


@pytest.mark.parametrize("num_clusters", [1, 40, 100])
def test_clusters_are_all_there_and_mostly_of_one_identity(num_clusters):
    _, identities = inputs.features(100, 16)
    labels = inputs.clusters(identities, num_clusters)
    assert sorted(set(labels.tolist())) == list(range(num_clusters))
    impure = [label for label in range(num_clusters) if len(identities[labels == label].unique()) > 1]
    assert len(impure) < len(identities.unique())  # at most where one ends and another begins


@pytest.mark.parametrize(("piece", "method"), [("minimum tree", "single"), ("average tree", "average")])
def test_scipys_whole_tree_is_the_same_work(piece, method):
    row = Row(piece, 50, 16, clusters=50, against=(SCIPY,))
    calls = pieces.prepare(row, "cpu")
    assert calls["ours"]().tolist() == [0] * 50
    assert len(calls[SCIPY]()) == 49
    assert hierarchy.is_valid_linkage(calls[SCIPY]())


def test_the_literal_stage_gives_the_same_labels():
    calls = pieces.prepare(Row("buc", 40, 16, clusters=20, against=(LITERAL,)), "cpu")
    assert calls["ours"]().tolist() == calls[LITERAL]()


def test_libraries_rank_to_the_same_average_precision():
    row = Row("ranking", 80, 16, queries=8, against=(LITERAL, SKLEARN, TORCHMETRICS))
    calls = pieces.prepare(row, "cpu")
    ours = calls["ours"]()
    _, aps, aps_step = calls[LITERAL]()
    # Rounding of distances in float32 makes two images change places now and then.
    trapezoid, step = (pytest.approx(ap, abs=1e-3) for ap in (ours.mean_ap, ours.mean_ap_step))
    assert (np.mean(aps), calls[SKLEARN]()) == (trapezoid, trapezoid)
    assert (np.mean(aps_step), calls[TORCHMETRICS]()) == (step, step)


@pytest.mark.parametrize("labels", ["distinct", "pairs", "same"])
def test_the_literal_update_leaves_the_same_table(labels):
    calls = pieces.prepare(Row("table update", 16, 8, clusters=30, labels=labels, against=(LITERAL,)), "cpu")
    calls["ours"]()
    calls[LITERAL]()
    table, weight = calls["ours"].func.__self__.weight, calls[LITERAL].args[0]
    torch.testing.assert_close(table, weight)
    assert (table.any(1).sum()) == {"distinct": 16, "pairs": 8, "same": 1}[labels]
