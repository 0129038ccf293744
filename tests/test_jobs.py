"""Runs that several ask for are made once, in whatever order suits, and handed out in the order asked for."""

import json
from dataclasses import asdict, replace

import pytest
from conftest import make_split
from tiny_run import NETWORK, QUICK, figures, share, start

from reprolib import BUC, DBC, OIM, jobs, paths
from reprolib.files import Busy, locked
from reprolib.jobs import Job, noted
from reprolib.record import load_record
from reprolib.state import first_stage_folder

PATIENCE = 300  # seconds that a process may take; it takes a few, on a core of its own


def tiny_job(recipe=BUC, seed=0, **settings):
    return Job(replace(recipe, **QUICK), make_split(), seed, NETWORK | settings)


def test_two_processes_that_need_the_same_runs_share_the_work(tmp_path):
    both = [start(tmp_path, share, name=name, seeds=6) for name in ("first", "second")]
    for process in both:
        process.join(PATIENCE)
        assert process.exitcode == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    stages = sum(len(load_record(file).stages) for file in (tmp_path / "runs").glob("*.json"))
    assert log.count("training by") == stages == 6 * 3  # each once
    assert min(log.count("training by first"), log.count("training by second")) >= 3  # each its part
    assert [(tmp_path / name).read_text() for name in ("first", "second")] == ["0 1 2 3 4 5"] * 2


class Asked:
    """A job that another process is at for the first ``busy`` times that it is asked for."""

    def __init__(self, name: str, busy: int, log: list):
        self.name, self.busy, self.log = name, busy, log

    def run(self, *, wait: bool = True) -> str:
        self.log.append(self.name + (" waits" if wait else ""))
        self.busy -= 1
        if self.busy >= 0 and not wait:
            raise Busy
        return self.name


def test_what_is_free_comes_first_and_waiting_last():
    log = []
    asked = [Asked(name, busy, log) for name, busy in (("a", 9), ("b", 0), ("c", 1), ("d", 2))]
    assert jobs.train(asked) == ["a", "b", "c", "d"]
    assert log == ["a", "b", "c", "d", "a", "c", "d", "a", "d", "a", "a waits"]


def test_a_run_whose_first_stage_another_is_at_is_busy_until_that_is_saved(results_folder, tiny_network):
    whole = tiny_job(DBC).run()
    with locked(first_stage_folder(whole.settings)):
        other = tiny_job(replace(DBC, name="other"))
        with pytest.raises(Busy):
            other.run(wait=False)
    assert other.run(wait=False).curve("rank-1") == whole.curve("rank-1")


def test_a_job_started_over_is_trained_again_to_the_same_record(results_folder, tiny_network):
    job, stages = tiny_job(), []
    first = job.run(on_stage=lambda record, of: stages.append((len(record.stages), of)))
    assert stages == [(1, 3), (2, 3), (3, 3)]
    job.run(on_stage=lambda *_: pytest.fail("it was trained again"))
    belonging = [folder / f"{first.name}.npz" for folder in (paths.LABELS, paths.MAPS)]
    paths.MAPS.mkdir()
    belonging[1].touch()
    job.start_over()
    assert not list(paths.RUNS.iterdir())
    assert not any(file.exists() for file in belonging)
    assert figures(job.run()) == figures(first)


def test_jobs_are_noted_once_each_for_any_folder_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv(jobs.NOTE_IN, str(tmp_path / "notes"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    asked = [Job(recipe, "synthetic", seed, {"image_size": [64, 32]}) for recipe in (BUC, OIM) for seed in (0, 1)]
    asked.append(Job(DBC, "market1501", 0, {"data_root": "data", "weights": "w.pth"}))
    for _ in range(2):  # two notebooks
        assert jobs.train(asked) == []
    found = noted(tmp_path / "notes")
    assert [job.title for job in found] == ["buc, seed 0", "buc, seed 1", "dbc, seed 0", "oim, seed 0", "oim, seed 1"]
    assert [job.recipe for job in found] == [BUC, BUC, DBC, OIM, OIM]
    assert found[2].settings == {"data_root": str(tmp_path / "data"), "weights": str(tmp_path / "w.pth")}
    assert json.loads(json.dumps(asdict(found[0]))) == asdict(asked[0].anywhere())
