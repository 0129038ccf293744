"""The command line: what it says when all is well, and when it is not."""

import pytest
from typer.testing import CliRunner

from reprolib import batch, paths, pipeline
from reprolib.cli import app


def call(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize("command", [[], ["run"], ["reproduce"], ["check-data"]])
def test_help_says_what_each_command_is_for(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_run_trains_and_ends_with_the_kept_stage(results_folder, tiny_network, tiny_split, monkeypatch):
    monkeypatch.setattr(pipeline, "load_dataset", lambda name, root: tiny_split)
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
    assert "rank-1" in result.output
    assert len(list(paths.RUNS.glob("tiny_oim_*.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "bcu"], "not one of buc, dbc"),
        (["--recipe", "buc", "--dataset", "market"], "dataset 'market' is not one of"),
        (["--recipe", "buc", "--image-size", "256"], "HEIGHTxWIDTH"),
        (["--recipe", "buc", "--device", "abacus"], "device 'abacus' is unknown"),
        (["--recipe", "buc", "--dataset", "market1501", "--data-root", "/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments, message, results_folder):
    result = call("run", *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_check_data_fails_where_there_is_nothing_and_says_where_to_get_it(tmp_path):
    result = call("check-data", "market1501", "--data-root", str(tmp_path))
    assert result.exit_code == 1
    assert "not found" in result.output
    assert "source:" in result.output


def test_unknown_notebooks_and_parameters_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="00_tour"):
        batch.select(["77"])
    with pytest.raises(ValueError, match=r"there are .*seeds"):
        batch.reproduce(batch.select(["04"]), {"sedes": "[0]"})


def test_a_notebook_that_fails_is_named_and_the_others_still_run(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        batch,
        "execute",
        lambda notebook, *a, **k: calls.append(notebook) or ("boom" if "00" in notebook.name else None),
    )
    failures = batch.reproduce(batch.select(["00", "02"]), {}, results=tmp_path)
    assert failures == {"00_tour.ipynb": "boom"}
    assert len(calls) == 2
