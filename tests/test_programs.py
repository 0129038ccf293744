"""The steps as the released programs take them: their own figures, and what is said of the time they take."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import inputs, programs
from reprolib import paths, rank_gallery, timings
from reprolib.recipe import BUC_RELEASED
from reprolib.timings import load_benchmark

GOLDEN = Path(__file__).parent / "golden" / "merging"


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*_cont_*.npz")), ids=lambda file: file.stem)
def test_a_stage_gives_the_released_programs_labels(file):
    stored = np.load(file)
    features, labels, merges = stored["feats"], stored["labels_in"], int(stored["m"])
    if file.stem.startswith("buc"):
        found = programs.merge_as_buc(features, labels.tolist(), weight=float(stored["lam"]), merges=merges)
    else:
        found = programs.merge_as_dbc(features, labels, merges=merges).tolist()
    assert found == stored["labels_out"].tolist()


def test_the_means_taken_at_once_are_those_of_the_loop():
    features, identities = (v.numpy() for v in inputs.features(90, 16))
    labels = inputs.clusters(torch.from_numpy(identities), 30).numpy()
    sampled = programs.Sampled(every=4)
    by_loop = programs.merge_as_dbc(features, labels, merges=8)
    assert programs.merge_as_dbc(features, labels, merges=8, means=sampled).tolist() == by_loop.tolist()


def test_a_ranking_gives_our_figures():
    rows, _ = inputs.features(120, 16)
    query, gallery, ids = rows[:20], rows[20:], inputs.ids(20, 100)
    ours = rank_gallery(query, gallery, **ids)
    numbers = {name: v.numpy() for name, v in ids.items()}
    rank1, mean_ap = programs.rank_as_programs(query.numpy(), gallery.numpy(), **numbers)
    assert (rank1, mean_ap) == (pytest.approx(float(ours.cmc[0])), pytest.approx(ours.mean_ap, abs=1e-3))


def test_one_command_measures_every_step_and_adds_up_a_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.programs", "--quick", "--device", "cpu", "--output", str(tmp_path)]
    printed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    (file,) = tmp_path.glob("*.json")
    table = timings.beside_programs([load_benchmark(file)])
    assert len(table) == 3 + 3 + 1 + 2
    assert all(step in printed for step in table["step"])
    assert (table[["ours, s", "as its program, s"]] > 0).all(axis=None)


def test_a_run_is_added_up_stage_by_stage():
    def row(piece, clusters, seconds):
        return {"piece": piece, "images": 100, "clusters": clusters, "seconds": {"ours": 1.0, timings.PROGRAM: seconds}}

    provenance = {"device": "a CPU", "device_type": "cpu", "threads": 1}
    measured = [row("buc_released", c, 5 + c**2 / 100) for c in (100, 50, 10)] + [row("ranking", 0, 2.0)]
    run = timings.beside_programs([timings.Benchmark(provenance, measured)]).iloc[-2]
    stages = BUC_RELEASED.num_stages(100)
    begins = [100 - 5 * k for k in range(stages - 1)]
    assert run["step"] == f"buc_released: a run, {stages - 1} stages of merging and {stages} rankings"
    assert run["ours, s"] == pytest.approx(len(begins) + stages)
    assert run["as its program, s"] == pytest.approx(sum(5 + c**2 / 100 for c in begins) + 2 * stages)
