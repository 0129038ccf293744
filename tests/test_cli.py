"""The command line: what it says when all is well, and when it is not."""

import nbformat
import pytest
from typer.testing import CliRunner

from reprolib import batch, paths, pipeline
from reprolib.cli import app


def call(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.mark.parametrize("command", [[], ["run"], ["reproduce"], ["report"], ["check-data"]])
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


def test_a_report_of_an_unknown_source_is_one_clear_line():
    result = call("report", "--source", "both")
    assert result.exit_code == 1
    assert result.output.startswith("error: source='both' is not one of")
    assert "Traceback" not in result.output


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Put two small notebooks in place of the real ones, the second of which fails."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    for name, source in {"01_good": "print(seeds)", "02_bad": "raise RuntimeError('boom')"}.items():
        parameters = nbformat.v4.new_code_cell('source = "stored"\nseeds = [0]', metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    return tmp_path


def test_a_parameter_without_a_value_is_one_clear_line():
    result = call("reproduce", "--set", "seeds")
    assert result.exit_code == 1
    assert "--set 'seeds': give name=value" in result.output


def test_a_notebook_that_fails_is_named_and_the_others_still_run_with_their_parameters(shelf):
    failures = batch.reproduce(batch.select([]), {"seeds": "[0, 1]"}, results=shelf / "results")
    assert list(failures) == ["02_bad.ipynb"]
    assert "boom" in failures["02_bad.ipynb"]
    good = nbformat.read(shelf / "results" / "executed" / "01_good.ipynb", as_version=4)
    assert good.cells[-1].outputs[0].text == "[0, 1]\n"
