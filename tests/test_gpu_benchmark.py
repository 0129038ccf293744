"""The GPU benchmark and the session at sizes for a CPU."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu, loops, programs, session
from reprolib import paths
from reprolib.recipe import BUC_RELEASED
from reprolib.timings import Benchmark, load_benchmark


def test_one_command_measures_training_and_extraction_beside_the_roof_and_a_plain_loop(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--device", "cpu", "--output", str(tmp_path)]
    printed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    (file,) = tmp_path.glob("*.json")
    benchmark = load_benchmark(file)
    measured = {(r["piece"], r["batch"]): r for r in benchmark.rows if "batch" in r}
    assert measured.keys() == {(piece, b) for piece in ("training", "extraction") for b in loops.QUICK.batches}
    for row in measured.values():
        assert row["seconds"].keys() == {"ours", "roof", "plain loop"}
        assert all(s > 0 for times in row["times"].values() for s in times)
    runs = [r for r in benchmark.rows if r["piece"] == "a run"]
    assert [r["recipe"] for r in runs] == ["buc_released", "dbc_released"]
    for run in runs:
        assert run["contenders"].keys() == {"ours", "plain loop"}
        for parts in run["contenders"].values():
            assert list(parts) == ["train", "extract", "validity", "merge", "evaluate"]
            assert all(s > 0 for part, s in parts.items() if part != "validity")
    assert "of the roof" in printed
    assert "together" in printed
    assert {"device", "versions", "commit", "date", "cores"} <= benchmark.provenance.keys()


def test_what_one_command_measured_the_next_one_keeps(tmp_path, monkeypatch):
    asked = []

    def note(piece, sizes, batch, precision, *_):
        asked.append((piece, batch, precision))
        return {"piece": piece, "batch": batch, "precision": precision} | {
            k: dict.fromkeys(("ours", "roof", "plain loop"), v) for k, v in (("seconds", 1.0), ("times", [1.0]))
        }

    monkeypatch.setattr(gpu, "measure", note)
    monkeypatch.setattr(gpu, "_plain", lambda *_: [1.0])
    monkeypatch.setattr(gpu, "validity", lambda *_: {"piece": "validity"})
    monkeypatch.setattr(gpu, "whole_run", lambda recipe, *_: {"piece": "a run", "precision": "float32"})
    monkeypatch.setattr(gpu, "whole_runs", lambda rows: gpu.pd.DataFrame())
    merged = []
    monkeypatch.setattr(programs, "_stage", lambda recipe, images, clusters, _: merged.append(clusters) or {})
    monkeypatch.setattr(programs, "_ranking", lambda *_: merged.append("ranking") or {})
    command = {"device": "cpu", "precision": None, "quick": True, "output": tmp_path}
    gpu.main(**command, runs=False)
    assert len(asked) == 4
    gpu.main(**command, runs=True)
    assert (len(asked), len(merged)) == (4, 7)  # nothing of it again; three stages of either program and a ranking
    (file,) = tmp_path.glob("*.json")
    benchmark = load_benchmark(file)
    Benchmark(benchmark.provenance, benchmark.rows[1:]).save(tmp_path)
    gpu.main(**command, runs=False)
    assert (asked[4:], len(merged)) == ([("training", 4, "float32")], 7)
    pieces = [row["piece"] for row in load_benchmark(file).rows]
    assert pieces.count("a run") == 2  # sums that were there stay
    gpu.main(**command, runs=True)
    assert sorted(row["piece"] for row in load_benchmark(file).rows) == sorted(pieces)


def test_a_whole_run_is_the_papers_schedule_added_up_from_its_parts():
    images, tested, stages = 12_936, 3368 + 15_913, 19
    second = dict.fromkeys(("ours", "plain loop"), 1.0)
    once = {"ours": {"first stage": 30.0, "later stage": 10.0}}
    rows = [
        {"piece": "training", "batch": 16, "precision": "bf16", "seconds": second, "once": once},
        {"piece": "extraction", "batch": 64, "precision": "bf16", "seconds": dict.fromkeys(second, 9.0)},
        {"piece": "extraction", "batch": 256, "precision": "bf16", "seconds": second},
        {"piece": "training", "batch": 16, "precision": "tf32", "seconds": dict.fromkeys(second, 9.0)},
        {"piece": "validity", "seconds": {"ours": 4.0}},
        {"piece": "ranking", "seconds": {"ours": 3.0, "program's way": 5.0}},
    ]
    merging = {"ours": 2.0, "program's way": 7.0}
    rows += [
        {"piece": "buc_released", "images": images, "clusters": c, "seconds": merging} for c in (images, 6468, 1293)
    ]
    run = gpu.whole_run(BUC_RELEASED, loops.Sizes(), "bf16", rows)
    steps = (20 + 18 * 2) * (images // 16)  # of batches
    assert run["contenders"] == {
        "ours": {
            "train": steps + 30 + 18 * 10,
            "extract": 19 * images / 256,  # the last stage's clusters are judged, though not merged
            "validity": 18 * 4,
            "merge": pytest.approx(18 * 2),
            "evaluate": 20 * (tested / 256 + 3),  # the untrained network's, too
        },
        "plain loop": {
            "train": steps,
            "extract": 18 * images / 256,
            "validity": 0,
            "merge": pytest.approx(18 * 7),
            "evaluate": 19 * (tested / 256 + 5),
        },
    }
    table = gpu.whole_runs([*rows, run]).set_index("contender")
    ours, plain = table["together"]
    assert table["× ours"].to_dict() == {"ours": 1, "plain loop": round(plain / ours, 2)}
    assert table["a stage"]["ours"] == round(ours / stages, 2)


def test_a_piece_that_fails_or_is_slow_stops_no_other_and_one_that_is_done_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "LAST_START", 1)
    (tmp_path / "logs").mkdir()

    def attempt(code, left=60.0):
        return session.attempt("a piece", [sys.executable, "-c", code], tmp_path, left=left)

    assert attempt("raise SystemExit('no')").startswith("failed after")
    assert (tmp_path / "logs" / "a_piece.log").read_text() == "no\n"
    assert attempt("import time; time.sleep(60)", left=2) == "cut off after 2 s"
    assert attempt("", left=0.5) == "no time left"
    assert attempt("import os; print(os.environ['REPROLIB_RESULTS'])").startswith("done in")
    assert str(tmp_path) in (tmp_path / "logs" / "a_piece.log").read_text()
    assert attempt("raise SystemExit(1)", left=0).startswith("done in")


def test_the_session_measures_every_method_with_three_seeds_and_the_papers_first(tmp_path):
    names = list(session.pieces(tmp_path, None))
    assert names[:3] == ["bench-gpu", "market1501 oim seed 0", "market1501 buc seed 0"]  # should time run out
    assert session.pieces(tmp_path, None)["bench-gpu"][-3:] == ["--precision", "bf16", "--no-runs"]
    for recipe in ("oim", "buc", "buc_unregularized", "dbc", "dbc_unregularized"):
        assert {f"market1501 {recipe} seed {seed}" for seed in (0, 1, 2)} <= set(names)


@pytest.mark.parametrize(("number", "weights"), [("07", session.BUC_WEIGHTS), ("14", session.DBC_WEIGHTS)])
def test_the_session_trains_with_the_weights_that_the_notebooks_compare(number, weights):
    (notebook,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    assert f"_lambdas = {list(weights)} " in notebook.read_text(encoding="utf-8")


def test_the_session_trains_each_recipe_in_a_process_of_its_own_two_at_once(tmp_path):
    command = [sys.executable, "-m", "benchmarks.session", "--quick", "--output", str(tmp_path), "--at-once", "2"]
    for recipe in ("oim", "buc"):
        command += ["--begins", f"market1501 {recipe} seed 0"]
    subprocess.run(command, cwd=paths.ROOT, capture_output=True, check=True)
    outcomes = json.loads((tmp_path / "session.json").read_text())
    logs = [log.read_text() for log in (tmp_path / "logs").glob("*.log")]
    assert outcomes.keys() == {"market1501 oim seed 0", "market1501 buc seed 0"}
    assert all(outcome.startswith("done in") for outcome in outcomes.values()), logs
    assert len(list((tmp_path / "runs").glob("synthetic-2ids_*_resnet18*.json"))) == 2
