"""Nothing that was computed is lost and nothing is mixed: runs that are killed, starved, doubled, or made otherwise."""

import errno
import os
import random
import shutil
import time
from dataclasses import replace

import pytest
import torch
from conftest import make_split
from tiny_run import NETWORK, QUICK, figures, leftovers, start, the_record

import reprolib
from reprolib import BUC, BUC_RELEASED, DBC, OIM, algorithm, paths, state
from reprolib.files import FolderError
from reprolib.recipe import SUPERVISED
from reprolib.state import StateError

PATIENCE = 300  # seconds that a process may take; it takes one, on a core of its own


@pytest.fixture
def tiny_run(results_folder, tiny_network, tiny_split, monkeypatch):
    """A run in this process that saves every epoch."""
    monkeypatch.setattr(state, "SAVE_EVERY", 0)

    def run(recipe=BUC, split=tiny_split, **settings):
        return reprolib.run(replace(recipe, **QUICK), split, **(NETWORK | settings))

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The record of a run that nothing disturbed, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole")
    start(folder).join(PATIENCE)  # the server has to import torch first
    shutil.rmtree(folder)
    begun = time.monotonic()
    start(folder).join(PATIENCE)
    return the_record(folder), time.monotonic() - begun


class CutOff(BaseException):
    """The process ends here."""


def cut_off(monkeypatch, run, *, after: int) -> None:
    """Run until ``after`` saves of a stage in the making were written."""
    save, count = state.Checkpoint.save, 0

    def counted(self, tensors):
        nonlocal count
        save(self, tensors)
        count += 1
        if count == after:
            raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr(state.Checkpoint, "save", counted)
        with pytest.raises(CutOff):
            run()


def test_a_run_killed_at_twenty_random_moments_ends_in_the_same_record(whole, tmp_path):
    record, seconds = whole
    rng, kills, chain = random.Random(0), 0, 0
    while kills < 20:
        chain += 1
        folder = tmp_path / str(chain)
        while True:
            process = start(folder)
            process.join(rng.uniform(0, seconds))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            kills += 1
        assert process.exitcode == 0, (folder / "log").read_text()
        assert figures(the_record(folder)) == figures(record)
        assert leftovers(folder) == []


@pytest.mark.parametrize(("write", "save_every"), [*((n, 0) for n in (1, 2, 5, 7, 9, 16, 20)), (2, 60)])
def test_a_run_killed_in_the_middle_of_a_write_ends_in_the_same_record(whole, tmp_path, write, save_every):
    killed = start(tmp_path / "run", die_at_write=write)
    killed.join(PATIENCE)
    assert killed.exitcode == -9
    assert leftovers(tmp_path)
    again = start(tmp_path / "run", save_every=save_every)
    again.join(PATIENCE)
    assert again.exitcode == 0
    assert figures(the_record(tmp_path / "run")) == figures(whole[0])
    assert leftovers(tmp_path) == []


def test_of_two_processes_that_ask_for_the_same_run_one_trains_and_the_other_waits_and_reads(whole, tmp_path):
    first = start(tmp_path / "run", epochs=40)
    while not list(tmp_path.rglob("*.training.safetensors")):
        time.sleep(0.01)
    second = start(tmp_path / "run", epochs=40)
    for process in (first, second):
        process.join(PATIENCE)
        assert process.exitcode == 0
    log = (tmp_path / "run" / "log").read_text()
    assert log.count("another process is at it; waiting for its result") == 1
    assert log.count("training\n") == len(the_record(tmp_path / "run").stages)


def test_the_lock_of_a_dead_process_is_free(whole, tmp_path):
    first = start(tmp_path / "run", epochs=40)
    while not list(tmp_path.rglob("*.training.safetensors")):
        time.sleep(0.01)
    first.kill()
    first.join()
    assert len(list(tmp_path.rglob("*.lock"))) == 2
    second = start(tmp_path / "run", epochs=40)
    second.join(PATIENCE)
    assert second.exitcode == 0
    assert "waiting" not in (tmp_path / "run" / "log").read_text()


def test_a_process_out_of_disk_says_where_and_the_same_command_goes_on_with_more(whole, tmp_path):
    starved = start(tmp_path / "run", largest_file=30_000)  # bytes; the weights take more
    starved.join(PATIENCE)
    assert starved.exitcode == 1
    log = (tmp_path / "run" / "log").read_text()
    assert f"{tmp_path / 'run' / 'state'}: cannot be written to" in log
    assert "File too large" in log
    assert "free some space or make it writable" in log
    assert leftovers(tmp_path) == []
    start(tmp_path / "run").join(PATIENCE)
    assert figures(the_record(tmp_path / "run")) == figures(whole[0])


@pytest.mark.parametrize(
    ("recipe", "frames", "backbone", "after", "left"),
    [
        (BUC, 1, "resnet18", 1, 7),
        (BUC, 1, "mobilenet_v2", 2, 6),  # its tensors have the channels last
        (DBC, 1, "resnet18", 3, 5),
        (OIM, 1, "resnet18", 4, 4),
        (BUC_RELEASED, 1, "resnet18", 6, 2),
        (BUC, 3, "resnet18", 7, 7),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_stage_cut_off_goes_on_after_its_last_epoch_bit_for_bit(
    tiny_run, monkeypatch, recipe, frames, backbone, after, left
):
    split = make_split(frames=frames)
    record = tiny_run(recipe, split, backbone=backbone)
    cut_off(monkeypatch, lambda: tiny_run(recipe, split, backbone=backbone, fresh=True), after=after)
    epochs = []
    save = state.Checkpoint.save
    monkeypatch.setattr(state.Checkpoint, "save", lambda self, tensors: epochs.append(1) or save(self, tensors))
    assert figures(tiny_run(recipe, split, backbone=backbone)) == figures(record)
    assert len(epochs) == left
    assert leftovers(paths.STATE) == []


def test_nothing_is_saved_of_a_stage_that_takes_less_than_the_interval(tiny_run, monkeypatch):
    monkeypatch.setattr(state, "SAVE_EVERY", 60)
    monkeypatch.setattr(state, "replacing", lambda file: pytest.fail(f"{file} is written"))
    state.Checkpoint(paths.STATE / "stage", {}).save({})
    assert not paths.STATE.exists()


def test_what_was_cut_off_counts_in_the_seconds_of_the_stage(results_folder, monkeypatch):
    clock = iter([100.0, 130.0, 130.0, 500.0, 507.0, 507.0, 900.0])  # begun, a save and its end, twice; begun
    monkeypatch.setattr(state.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(state, "SAVE_EVERY", 0)
    for seconds in (0, 30, 37):
        checkpoint = state.Checkpoint(paths.STATE / "stage", {})
        checkpoint.load()
        assert checkpoint.seconds == seconds
        if seconds < 37:
            checkpoint.save({"x": torch.zeros(1)})


@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, 1), (errno.ENOSPC, 6), (errno.EROFS, 8), (errno.ENOSPC, 20)])
def test_a_write_that_fails_names_the_folder_and_leaves_the_last_good_state(tiny_run, monkeypatch, code, full):
    record = tiny_run()
    fsync, count = os.fsync, 0

    def fail(descriptor):
        nonlocal count
        count += 1
        if count == full:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(FolderError, match=rf"{paths.STATE.parent}/\w+.*: cannot be written to .*free some space"):
            tiny_run(fresh=True)
    assert not list(paths.STATE.parent.rglob("*.partial"))
    assert figures(tiny_run()) == figures(record)


def test_a_results_folder_that_cannot_be_made_is_named_before_training(tiny_run, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(paths, "STATE", tmp_path / "file" / "state")
    with pytest.raises(FolderError, match=r"file/state: cannot be written to .*Not a directory"):
        tiny_run()


@pytest.mark.parametrize("after", [2, 5])  # in the first stage, in the second
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("SOURCE", "other", r"reprolib was '.+, source \w+', is '.+, source other'"),
        ("versions", lambda: {"torch": "1.0"}, r"torch was '.+', is '1\.0'"),
    ],
    ids=["code", "versions"],
)
def test_state_of_other_code_or_versions_is_refused_by_name_and_fresh_starts_over(
    tiny_run, monkeypatch, after, name, change, message
):
    cut_off(monkeypatch, tiny_run, after=after)
    monkeypatch.setattr(state, name, change)
    with pytest.raises(StateError, match=rf"saved by an earlier run .*{message}.*start over with --fresh"):
        tiny_run()
    record = tiny_run(fresh=True)
    monkeypatch.setattr(state, name, None)  # a finished run is read, whatever made it
    assert tiny_run() == record


def test_a_first_stage_that_other_code_made_is_no_hindrance_to_a_run_that_was_never_begun(tiny_run, monkeypatch):
    tiny_run()
    monkeypatch.setattr(state, "SOURCE", "other")
    record = tiny_run(OIM)
    assert figures(tiny_run(OIM, fresh=True)) == figures(record)


def test_a_first_stage_does_not_depend_on_identities_that_training_does_not_see(tiny_run, tiny_split, monkeypatch):
    whole, trained = tiny_run(), []
    train = algorithm.Algorithm._train
    monkeypatch.setattr(algorithm.Algorithm, "_train", lambda self, *a: trained.append(a[0]) or train(self, *a))
    other = tiny_run(replace(BUC, name="other"), split=replace(tiny_split, train_pids=None))
    assert 0 not in trained
    assert other.curve("rank-1") == whole.curve("rank-1")


def test_a_run_without_ranking_is_not_read_back_where_there_is_something_to_rank(tiny_run, tiny_split):
    recipe = replace(BUC, selection="last")
    tiny_run(recipe, split=replace(tiny_split, query=None, gallery=None))
    with pytest.raises(StateError, match=r"query was None, is '.+'"):
        tiny_run(recipe)


def test_a_finished_run_is_not_read_back_for_other_training_identities(tiny_run, tiny_split):
    tiny_run()
    with pytest.raises(StateError, match=r"train identities was '.+', is '.+'"):
        tiny_run(split=replace(tiny_split, train_pids=tiny_split.train_pids[::-1].copy()))


def test_state_evaluated_on_another_gallery_is_refused(tiny_run, tiny_split, monkeypatch):
    cut_off(monkeypatch, tiny_run, after=5)
    fewer = replace(tiny_split, gallery=tiny_split.gallery.take(range(40)))
    with pytest.raises(StateError, match=r"gallery was '.+', is '.+'"):
        tiny_run(split=fewer)


def test_a_finished_run_is_not_read_back_for_another_test_set(tiny_run, tiny_split):
    record = tiny_run()
    assert tiny_run() == record
    relabelled = replace(tiny_split.query, camids=tiny_split.query.camids[::-1].copy())
    with pytest.raises(StateError, match=r"\.json: saved by .*query was '.+', is '.+'.*--fresh"):
        tiny_run(split=replace(tiny_split, query=relabelled))


@pytest.mark.parametrize(
    "file", ["content.json", "model.safetensors", "stage_01.training.safetensors", "next_labels.npy", "labels.npy"]
)
def test_damaged_state_is_named(tiny_run, monkeypatch, file):
    cut_off(monkeypatch, tiny_run, after=5)
    for damaged in paths.STATE.rglob(file):
        damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(StateError, match=r"damaged .*start over with --fresh"):
        tiny_run()


def test_state_that_does_not_say_what_made_it_is_refused(tiny_run, monkeypatch):
    cut_off(monkeypatch, tiny_run, after=5)
    for content in paths.STATE.rglob("content.json"):
        content.write_text('{"entry": {}}')
    with pytest.raises(StateError, match="does not say how it was made"):
        tiny_run()


def test_a_first_stage_is_shared_by_what_does_not_change_it_alone():
    def stage(recipe, **other):
        return state.first_stage({"dataset": "tiny", "train identities": "a", "recipe": recipe.settings()} | other)

    after = {"name", "criterion", "merge_percent", "stage_rule", "table_start", "later_stage_epochs", "selection"}
    after |= {"later_stage_epochs_video", "later_learning_rate", "frames_at_most", "junk"}
    assert stage(BUC)["recipe"].keys() == BUC.settings().keys() - after
    assert stage(BUC) == stage(BUC, **{"train identities": "b"})
    assert stage(SUPERVISED) != stage(SUPERVISED, **{"train identities": "b"})
