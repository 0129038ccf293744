"""The cost of large data sets is what the page says, and follows from what is counted by hand at a small size."""

import pytest
import torch

from benchmarks import inputs, scaling
from benchmarks.scaling import H200, Cost, closest_pairs, costs, measured, within_lists
from reprolib import BUC
from reprolib.timings import Benchmark


def test_the_page_is_what_is_computed():
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert page == scaling.renewed(page), "renew it: python -m benchmarks.scaling"
    assert page.count("| 10^") == len(scaling.SIZES) * 6


def test_costs_are_what_a_count_of_every_batch_and_stage_gives():
    images, forwards, rows, extracted = 400, 0, 0, 0
    stages = scaling.clusters(BUC, images)
    assert stages == [400 - 20 * k for k in range(19)]
    for stage, num_clusters in enumerate(stages):
        for _ in range(20 if stage == 0 else 2):
            for _ in range(images // 16):
                forwards, rows = forwards + 16, rows + 2 * num_clusters
        extracted += images
    found = {c.piece: c for c in costs(images)}
    assert found["training: the network"].gpu_seconds == pytest.approx(3 * forwards * scaling.FORWARD / H200.network)
    assert found["training: the table"].gpu_seconds == pytest.approx(rows * 2048 * 4 / H200.bandwidth)
    assert found["features"].gpu_seconds == pytest.approx(extracted * scaling.FORWARD / H200.network)
    assert found["BUC: exact pairs"].gpu_seconds == pytest.approx(18 * 400**2 * 2048 / H200.pairs)
    assert found["DBC: exact pairs"].held == (400**2 + 400 * 2048) * 4


@pytest.mark.parametrize(
    ("hours", "held", "latency", "expected"),
    [
        (1, 1e9, 0, "one GPU"),
        (200, 1e9, 0, "in blocks"),
        (1, 142e9, 0, "in blocks"),
        (1, 65 * 141e9, 0, "out of reach"),
        (64 * 169, 1e9, 0, "out of reach"),
        (200, 1e9, 169, "out of reach"),  # no further GPU shortens it
    ],
)
def test_out_of_reach_is_what_64_gpus_do_not_hold_or_finish_in_a_week(hours, held, latency, expected):
    assert Cost("", 1, hours * 3600, held, latency * 3600).verdict(H200) == expected


def test_a_stage_goes_on_by_n_squared_from_the_largest_measured():
    rows = [
        {"piece": piece, "images": n, "clusters": n, "dim": 2048, "seconds": {"ours": seconds}, "peak_bytes": {}}
        for piece in ("buc", "dbc_released", "dbc")
        for n, seconds in ((1000, 1.0), (10_000, 9.0))
    ]
    machine = Benchmark({"device": "a CPU", "device_type": "cpu", "threads": 2}, rows)
    nothing = Benchmark({"device": "another", "device_type": "cpu", "threads": 2}, [])
    head, _, buc, _, dbc = scaling.further([machine, nothing]).split("\n")
    assert "at 10^5" in head
    assert "| 9 s at 10,000 | 15 minutes, 819 MB | 25 hours, 8.2 GB |" in buc
    assert "| 15 minutes, 41 GB | 25 hours, 4 TB |" in dbc


def test_a_measured_stage_takes_the_place_of_the_assumption():
    def benchmark(kind, *sizes):
        rows = [
            {"piece": "buc", "images": n, "clusters": n, "dim": 10, "seconds": {"ours": 2.0}, "peak_bytes": {}}
            for n in sizes
        ]
        return Benchmark({"device": "a GPU", "device_type": kind, "threads": 1}, rows)

    assert measured(H200, [benchmark("cpu", 1000)]) == H200
    rates = measured(H200, [benchmark("cuda", 100, 1000), benchmark("cpu", 5000)])
    assert rates.pairs == 1000**2 * 10 / 2
    assert rates.pairs_from == "measured at N = 1,000 on a GPU"


def test_all_lists_together_reach_every_pair_and_few_the_closest():
    features, _ = inputs.features(200, 16)
    everything = within_lists(features, 10, 10)
    assert everything.all()
    exact = closest_pairs(features, 10, everything)
    distances = torch.cdist(features.double(), features.double())
    ranked = sorted((float(distances[a, b]), a * 200 + b) for a in range(200) for b in range(a + 1, 200))
    assert set(exact.tolist()) == {pair for _, pair in ranked[:10]}
    few = within_lists(features, 10, 1)
    assert few.sum() < everything.sum() / 2
    assert torch.equal(few, few.T)
