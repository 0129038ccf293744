"""A dataset small enough to train on in a second, and results that land in a temporary folder."""

import numpy as np
import pytest
import torch
from torch import nn

from reprolib import model, paths
from reprolib.datasets import LabelledTracklets, Split, Tracklets

torch.set_num_threads(1)  # figures must not depend on the machine's cores


# The files that take longest; they begin first, so that no worker is left alone with one of them at the end.
SLOW = (
    "test_resume",
    "test_report",
    "test_cluster",
    "test_team",
    "test_benchmarks",
    "test_gpu_benchmark",
    "test_pipeline",
)
UNSTORED = ("reproduced", "report", "state", "cache")  # what git ignores: other processes may be at it
WRITTEN = (
    "RUNS",
    "STORED_RUNS",
    "BENCH",
    "STORED_BENCH",
    "STATE",
    "LABELS",
    "MAPS",
    "DATASETS",
    "CACHE",
    "FIGURES",
    "TABLES",
    "VERDICTS",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in SLOW)


@pytest.fixture(scope="session", autouse=True)
def stored_results_are_left_alone():
    """No test writes where the repository's own records, tables and verdicts are."""

    def written() -> set[tuple]:
        files = (file for file in (paths.ROOT / "results").rglob("*") if file.is_file())
        ours = (file for file in files if file.relative_to(paths.ROOT).parts[1] not in UNSTORED)
        return {(str(file), file.stat().st_mtime_ns) for file in ours}

    before = written()
    yield
    assert written() == before


@pytest.fixture
def results_folder(tmp_path, monkeypatch):
    """Send every folder that a run writes to under ``tmp_path``."""
    for name in WRITTEN:
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return tmp_path


@pytest.fixture
def tiny_network(monkeypatch):
    """Put four convolutions in place of every backbone: the same interface, a thousandth of the work."""
    monkeypatch.setattr(model, "load_backbone", tiny_backbone)


def tiny_backbone(name, weights):
    def layer(inside, outside):
        return nn.Sequential(nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU())

    stem, body = nn.Sequential(layer(3, 8), layer(8, 16)), nn.Sequential(layer(16, 32), layer(32, 32))
    return model.Backbone(nn.Sequential(stem, body), stem, body, 32)


@pytest.fixture
def tiny_split():
    return make_split()


def make_split(*, identities: int = 12, copies: int = 4, frames: int = 1) -> Split:
    """People of one noisy color each; every second sample is of camera 1."""
    rng = np.random.default_rng(0)
    colors = rng.integers(30, 225, (2 * identities, 1, 1, 3))

    def samples(people: np.ndarray, camera_offset: int):
        pids = np.repeat(people, copies)
        pixels = colors[np.repeat(pids, frames)] + rng.normal(0, 25, (len(pids) * frames, 32, 16, 3))
        return {
            "frames": pixels.clip(0, 255).astype(np.uint8),
            "starts": np.arange(len(pids) + 1) * frames,
            "camids": (np.arange(len(pids)) + camera_offset) % 2,
        }, pids

    train, train_pids = samples(np.arange(identities), 0)
    test = np.arange(identities, 2 * identities)
    (query, query_pids), (gallery, gallery_pids) = samples(test, 0), samples(test, 1)
    split = Split(
        "tiny",
        Tracklets(**train),
        LabelledTracklets(**query, pids=query_pids),
        LabelledTracklets(**gallery, pids=gallery_pids),
        train_pids,
    )
    return split.shuffle(seed=0)
