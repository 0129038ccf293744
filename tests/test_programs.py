"""The steps as the released programs take them: their own figures, and what is said of the time they take."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def test_block_sums_give_the_means_of_the_loop():
    features, identities = inputs.features(90, 16)
    labels = inputs.clusters(identities, 30).numpy()
    distances, ends, members = programs.by_cluster(features.numpy(), labels)
    loop = programs.one_by_one(distances, ends, range(len(members)))
    np.testing.assert_allclose(programs.at_once(distances, ends), loop, atol=1e-5)


def test_some_rows_of_the_loop_count_for_all_by_their_pairs():
    assert programs.share(5, range(5)) == 1
    assert programs.share(5, range(0, 5, 2)) == (5 + 3 + 1) / 15
    assert programs.share(5, range(1, 5, 2)) == (4 + 2) / 15


def test_a_ranking_gives_our_figures():
    rows, _ = inputs.features(120, 16)
    query, gallery, ids = rows[:20], rows[20:], inputs.ids(20, 100)
    ours = rank_gallery(query, gallery, **ids)
    numbers = {name: v.numpy() for name, v in ids.items()}
    rank1, mean_ap = programs.rank_as_programs(query.numpy(), gallery.numpy(), numbers)
    assert (rank1, mean_ap) == (pytest.approx(float(ours.cmc[0])), pytest.approx(ours.mean_ap, abs=1e-3))


def test_one_command_measures_every_step_and_adds_up_a_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.programs", "--quick", "--device", "cpu", "--output", str(tmp_path)]
    printed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    (file,) = tmp_path.glob("*.json")
    table = timings.beside_programs([load_benchmark(file)])
    assert len(table) == 3 + 3 + 1 + 2
    assert all(step in printed for step in table["step"])
    assert (table[["ours, s", "program's way, s"]] > 0).all(axis=None)


def test_a_run_is_added_up_stage_by_stage():
    def row(piece, clusters, seconds):
        return {"piece": piece, "images": 100, "clusters": clusters, "seconds": {"ours": 1.0, timings.PROGRAM: seconds}}

    provenance = {"device": "a CPU", "device_type": "cpu", "threads": 1}
    measured = [row("buc_released", c, 5 + c**2 / 100) for c in (100, 50, 10)] + [row("ranking", 0, 2.0)]
    run = timings.beside_programs([timings.Benchmark(provenance, measured)]).set_index("step").iloc[-2]
    stages = BUC_RELEASED.num_stages(100)
    begins = [100 - 5 * k for k in range(stages - 1)]
    assert run.name == f"a run: {stages - 1} mergings, {stages} rankings (ours {stages + 1})"
    assert run["ours, s"] == pytest.approx(len(begins) + stages + 1)
    assert run["program's way, s"] == pytest.approx(sum(5 + c**2 / 100 for c in begins) + 2 * stages)
