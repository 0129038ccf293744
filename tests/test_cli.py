"""The command line: what it says when all is well, and when it is not."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reprolib import BUC, batch, cli, cluster, jobs, paths, plan, results
from reprolib.cli import app
from reprolib.recipe import RECIPES


def call(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize("command", [[], ["run"], ["reproduce"], ["report"], ["check-data"]])
def test_help_says_what_each_command_is_for(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("command", ["run", "reproduce", "report", "check-data"])
def test_no_word_of_the_help_is_lost(command):
    shown = " ".join(re.sub(r"[│\n]", " ", call(command, "--help").output).split())
    for parameter in get_command(app).commands[command].params:
        if getattr(parameter, "help", None):
            assert "".join(parameter.help.split()) in shown.replace(" ", "")


def test_it_says_its_version():
    assert re.fullmatch(r"reprolib \S+\n", call("--version").output)


def test_what_no_notebook_could_train_is_said_before_any_is_executed(shelf, monkeypatch):
    monkeypatch.setattr(batch, "reproduce", lambda *_: pytest.fail("it was executed"))
    monkeypatch.setattr(batch, "REPRODUCED", shelf / "reproduced")
    batch.REPRODUCED.mkdir()
    for options, message in {
        "--dataset foo": "dataset 'foo' is not one of",
        "--identities -1": "identities=-1: synthetic has 45 training identities; use 1 to 45",
        "--backbone vgg": "backbone 'vgg' is not one of",
        "--weights catalog": "catalog: no such weights",
        "--set nosuch=1": "unknown parameters ['nosuch']",
        "--set seeds=3": "--set seeds=... has an option of its own: use --seeds",
    }.items():
        result = call("reproduce", "--fresh", *options.split())
        assert result.exit_code == 1
        assert message in result.output
        assert batch.REPRODUCED.exists()  # nothing is forgotten either


def test_a_parameter_of_other_notebooks_than_those_chosen_is_refused():
    result = call("reproduce", "04", "--set", "audit_source=run")
    assert result.exit_code == 1
    assert "unknown parameters ['audit_source']; use backbone, data_root" in result.output


def test_a_failed_notebook_is_told_by_its_last_error():
    trace = "Traceback\n\x1b[31mKeyError\x1b[39m: 'a'\n\nValueError: no such thing\n  say another\n"
    assert batch._last_error(trace) == "ValueError: no such thing\n  say another"
    assert batch._last_error("Killed") == "Killed"
    assert batch._last_error("OSError: full\nException ignored in: f\n").startswith("OSError: full")


def test_a_notebook_that_dies_without_a_word_has_failed(shelf, monkeypatch):
    killed = shelf / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(batch.sys, "executable", str(killed))
    failures = batch.reproduce(batch.select(["01"]), {}, results=shelf / "results")
    assert list(failures.values()) == ["ended with status -9"]


def test_run_trains_and_ends_with_the_kept_stage(results_folder, tiny_network, tiny_split, monkeypatch):
    monkeypatch.setattr(plan, "load_dataset", lambda *_, **__: tiny_split)
    result = call(
        "run",
        "--recipe",
        "oim",
        "--dataset",
        "synthetic",
        "--image-size",
        "32x16",
        "--weights",
        "none",
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    (record,) = paths.RUNS.glob("tiny_oim_*.json")
    assert re.search(r"oim, seed 0: rank-1 [\d.]+%, mAP .* at stage \d+ of 0-\d+, kept by test; made ", result.output)
    assert str(record) in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "bcu"], "not one of buc, dbc"),
        (["--recipe", "buc", "--dataset", "market"], "dataset 'market' is not one of"),
        (["--recipe", "buc", "--image-size", "256"], "HEIGHTxWIDTH"),
        (["--recipes", "buc,bcu"], "'bcu' is not one of buc, dbc"),
        (["--recipe", "buc", "--seeds", "0,x"], "'0,x': use numbers such as 0 or 0,1,2"),
        (["--recipe", "buc", "--engine", "slurm"], "'here', 'ray'"),
        (["--recipe", "buc", "--address", "auto"], "an address needs --engine ray"),
        (["--recipe", "buc", "--device", "abacus"], "device 'abacus' is unknown"),
        (["--recipe", "buc", "--dataset", "market1501", "--data-root", "/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments, message, results_folder):
    result = call("run", *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_no_identities_means_all_of_them(monkeypatch):
    asked = []
    monkeypatch.setattr(jobs, "train", lambda found: asked.extend(found) or [])
    assert call("run", "--recipe", "buc", "--identities", "0").exit_code == 0
    assert [job.settings["identities"] for job in asked] == [None]


def test_an_interrupted_command_says_how_to_go_on(monkeypatch):
    def interrupted(asked):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "train", interrupted)
    result = call("run", "--recipe", "buc")
    assert result.exit_code == 130
    assert result.output.strip() == "interrupted; to go on, give the same command again without --fresh"


@pytest.mark.parametrize("command", [["run", "--recipe", "buc"], ["reproduce"]])
def test_torchrun_and_ray_are_not_both_taken(command, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    result = call(*command, "--engine", "ray")
    assert result.exit_code == 2
    assert "use either --engine ray or torchrun, not both" in result.output


def test_check_data_fails_where_there_is_nothing_and_says_where_to_get_it(tmp_path):
    result = call("check-data", "market1501", "--data-root", str(tmp_path))
    assert result.exit_code == 1
    assert "not found" in result.output
    assert "source:" in result.output


def test_fresh_starts_over_where_a_finished_run_would_be_read(results_folder, tiny_network, tiny_split, monkeypatch):
    monkeypatch.setattr(plan, "load_dataset", lambda *_, **__: tiny_split)
    monkeypatch.setattr(
        "reprolib.cli.RECIPES", {"oim": replace(RECIPES["oim"], first_stage_epochs=1, merge_percent=0.5)}
    )
    command = ["run", "--recipe", "oim", "--image-size", "32x16", "--weights", "none", "--device", "cpu"]
    made = []
    for options, read_back in (([], False), ([], True), (["--fresh"], False)):
        result = call(*command, *options)
        assert result.exit_code == 0
        assert ("read back, made" in result.output) == read_back
        (file,) = paths.RUNS.glob("tiny_oim_*.json")
        made.append(file.stat().st_mtime_ns)
    assert made[0] == made[1] < made[2]


def test_every_recipe_is_run_with_every_seed(results_folder, tiny_network, tiny_split, monkeypatch):
    monkeypatch.setattr(plan, "load_dataset", lambda *_, **__: tiny_split)
    quick = {name: replace(RECIPES[name], first_stage_epochs=1, merge_percent=0.5) for name in ("buc", "oim")}
    monkeypatch.setattr("reprolib.cli.RECIPES", quick)
    options = ["--image-size", "32x16", "--weights", "none", "--device", "cpu"]
    result = call("run", "--recipes", "oim,buc", "--seeds", "0,1", *options)
    assert result.exit_code == 0, result.output
    found = re.findall(r"(oim|buc), seed (\d): rank-1", result.output)
    assert found == [("oim", "0"), ("oim", "1"), ("buc", "0"), ("buc", "1")]


def test_with_ray_the_runs_of_the_notebooks_are_trained_before_they_are_executed(shelf, monkeypatch):
    order = []
    monkeypatch.setattr(batch, "wanted", lambda notebooks, values: order.append("asked") or ["a run"])
    monkeypatch.setattr(cluster, "train", lambda runs, **options: order.append((runs, options)))
    monkeypatch.setattr(batch, "reproduce", lambda notebooks, values: order.append("executed") or {})
    result = call("reproduce", "--engine", "ray", "--address", "head:6379")
    assert result.exit_code == 0, result.output
    assert order == ["asked", (["a run"], {"address": "head:6379", "results": batch.REPRODUCED}), "executed"]


def test_the_runs_that_notebooks_ask_for_are_found_without_training(shelf, monkeypatch):
    for name, recipes in {"03_one": "BUC, OIM", "04_other": "OIM, DBC"}.items():
        notebook = nbformat.read(shelf / "01_good.ipynb", as_version=4)
        source = "from reprolib import BUC, DBC, OIM, results\n"
        for recipe in recipes.split(", "):  # a notebook may ask more than once
            source += f"results.load_or_run([{recipe}], dataset='synthetic', seeds=seeds, source=source)\n"
        notebook.cells[1].source = source
        nbformat.write(notebook, shelf / f"{name}.ipynb")
    values = {"source": "run", "seeds": "[0, 1]"}
    found = batch.wanted(batch.select(["03", "04"]), values)
    assert [job.title for job in found] == [f"{r}, seed {s}" for r in ("buc", "dbc", "oim") for s in (0, 1)]


@pytest.mark.parametrize(
    ("options", "identities"),
    [
        ("", "6"),
        ("--identities 0", None),
        ("--identities 24", "24"),
        ("--source stored", None),
        ("--dataset mars", None),
    ],
)
def test_without_a_word_few_people_are_trained_on_with_few_lambdas_and_all_of_a_real_dataset(
    options, identities, shelf, monkeypatch
):
    seen, cards = {}, pd.DataFrame([{"exhibit": "BUC Table 1", "claim": "a < b", "verdict": "partly"}])
    monkeypatch.setattr(results, "scorecard", lambda *_, **__: cards)
    monkeypatch.setattr(plan, "make_plan", lambda *_, **__: None)
    monkeypatch.setattr(batch, "reproduce", lambda notebooks, values: seen.update(values) or {})
    result = call("reproduce", *options.split())
    assert result.exit_code == 0, result.output
    assert seen.get("identities") == identities
    few = options == ""
    assert {"buc_lambdas", "dbc_lambdas"} <= seen.keys() if few else "lambdas" not in str(seen)
    assert ("A quick check, trained on 6 of the 45 synthetic people" in result.output) == few


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("05 --dataset mars", "dataset"),
        ("13 --backbone resnet18", "backbone"),
        ("05 --seeds 3", "seeds"),
        ("17 --source stored", "source"),
    ],
)
def test_an_option_that_no_chosen_notebook_has_is_refused(options, named, monkeypatch):
    monkeypatch.setattr(batch, "reproduce", lambda *_: pytest.fail("the notebooks were run"))
    result = call("reproduce", *options.split())
    assert result.exit_code == 1
    assert f"unknown parameters ['{named}']" in " ".join(result.output.split())


def test_weights_named_from_where_one_stands_are_found_from_where_notebooks_run(shelf, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(plan, "make_plan", lambda *_, **__: None)
    monkeypatch.setattr(batch, "reproduce", lambda notebooks, values: seen.update(values) or {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pth").touch()
    for weights, given in (("mine.pth", str(tmp_path / "mine.pth")), ("imagenet", "imagenet")):
        assert call("reproduce", "--weights", weights).exit_code == 0
        assert json.loads(seen["weights"]) == given


def test_the_few_lambdas_are_parameters_of_notebooks():
    assert cli.SYNTHETIC_LAMBDAS.keys() <= set().union(*map(batch.parameters, batch.select([])))


def test_a_report_of_an_unknown_source_is_one_clear_line():
    result = call("report", "--source", "both")
    assert result.exit_code == 2
    assert "'stored', 'run'" in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Put two small notebooks in place of the real ones, the second of which fails."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    for name, source in {"01_good": "print(seeds)", "02_bad": "raise RuntimeError('boom')"}.items():
        others = "".join(f"{name} = None\n" for name in ("dataset", "identities", "buc_lambdas", "dbc_lambdas"))
        text = f'source = "stored"\nseeds = [0]\n{others}backbone = weights = image_size = data_root = None'
        parameters = nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    return tmp_path


@pytest.mark.parametrize(("text", "value"), [("false", False), ("True", True), ("0.5", 0.5), ("last", "last")])
def test_a_value_on_the_command_line_is_what_it_looks_like(text, value):
    assert cli._value(text) == value
    assert type(cli._value(text)) is type(value)


def test_a_parameter_without_a_value_is_one_clear_line():
    result = call("reproduce", "--set", "seeds")
    assert result.exit_code == 1
    assert "--set 'seeds' is not of the form name=value" in result.output


def test_a_notebook_that_fails_is_named_and_the_others_still_run_with_their_parameters(shelf):
    failures = batch.reproduce(batch.select([]), {"seeds": "[0, 1]"}, results=shelf / "results")
    assert list(failures) == ["02_bad.ipynb"]
    assert "boom" in failures["02_bad.ipynb"]
    good = nbformat.read(shelf / "results" / "executed" / "01_good.ipynb", as_version=4)
    assert good.cells[-1].outputs[0].text == "[0, 1]\n"


STOPPED = """import sys
from functools import partial
from pathlib import Path
from reprolib import batch, cli, paths
paths.NOTEBOOKS = Path(sys.argv[1])
batch.reproduce = partial(batch.reproduce, results=paths.NOTEBOOKS / "results")
cli.app(["reproduce", "01", "--source", "stored"])
"""


def test_told_to_stop_it_leaves_no_notebook_running(shelf):
    notebook = nbformat.read(shelf / "01_good.ipynb", as_version=4)
    notebook.cells[-1].source = f"""import os, time
from pathlib import Path
Path({str(shelf / "partial")!r}).write_text(str(os.getpid()))
Path({str(shelf / "partial")!r}).rename({str(shelf / "pid")!r})
time.sleep(120)"""
    nbformat.write(notebook, shelf / "01_good.ipynb")
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(shelf)], stdout=subprocess.DEVNULL)
    wait_until((shelf / "pid").exists)
    kernel = Path("/proc") / (shelf / "pid").read_text()
    assert kernel.exists()
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_until(lambda: not kernel.exists())


def wait_until(done, seconds=60):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_folder_with_any_signs_in_its_name_reaches_a_notebook(shelf, monkeypatch):
    monkeypatch.setattr(batch, "reproduce", partial(batch.reproduce, results=shelf / "results"))
    notebook = nbformat.read(shelf / "01_good.ipynb", as_version=4)
    notebook.cells[-1].source = "print(data_root)"
    nbformat.write(notebook, shelf / "01_good.ipynb")
    folder = shelf / "data #2: ä"
    folder.mkdir()
    result = call("reproduce", "01", "--source", "stored", "--data-root", str(folder))
    assert result.exit_code == 0, result.output
    good = nbformat.read(shelf / "results" / "executed" / "01_good.ipynb", as_version=4)
    assert good.cells[-1].outputs[0].text == f"{folder}\n"


def test_a_parameter_that_only_another_notebook_has_is_known(shelf):
    other = nbformat.read(shelf / "02_bad.ipynb", as_version=4)
    other.cells[0].source += '\ndataset = "synthetic"'
    nbformat.write(other, shelf / "02_bad.ipynb")
    assert batch.reproduce(batch.select(["01"]), {"dataset": "mars"}, results=shelf / "results") == {}


def test_every_option_of_a_run_reaches_it(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(jobs, "train", lambda found: asked.extend(found) or [])
    words = (
        "--recipe buc --dataset market1501 --device cpu --precision bf16 --compiled --backbone resnet18 --weights none "
    )
    words += (
        "--image-size 64x32 --identities 5 --samples 9 --seed 3 --set selection=silhouette --set regularizer_weight=0.5"
    )
    result = call("run", *words.split(), "--data-root", str(tmp_path))
    assert result.exit_code == 0, result.output
    (job,) = asked
    assert job.recipe == BUC.changed(selection="silhouette", regularizer_weight=0.5)
    assert (job.dataset, job.seed) == ("market1501", 3)
    network = {"device": "cpu", "precision": "bf16", "compiled": True, "backbone": "resnet18", "weights": "none"}
    data = {"image_size": (64, 32), "identities": 5, "samples": 9, "data_root": tmp_path}
    assert job.settings == network | data


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("selection", "--set 'selection' is not of the form name=value"),
        ("merging=0.1", "'merging' is not a field of a recipe"),
        ("merge_percent=2", "merge_percent=2.0 must"),
    ],
)
def test_a_field_that_cannot_be_set_is_one_clear_line(given, message):
    result = call("run", "--recipe", "buc", "--set", given)
    assert result.exit_code == 1
    assert message in result.output


def test_where_a_notebook_fails_the_status_says_so(monkeypatch):
    monkeypatch.setattr(batch, "reproduce", lambda *_: {"04_buc_table1.ipynb": "ValueError: no"})
    result = call("reproduce", "--source", "stored")
    assert result.exit_code == 1
    assert "failed: 04_buc_table1.ipynb: ValueError: no" in result.output
