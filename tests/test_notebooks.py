"""The law of the notebooks: short, without paths and definitions, and with the cells that a reader looks for."""

import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest

from reprolib import batch, paths
from reprolib.report.notebooks import read
from reprolib.verdicts import conclusions

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
EXPLAINERS = {"00", "02", "03", "18"}
every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)


def cells(notebook, kind="code"):
    return [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == kind]


def code(cell):
    return "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))


@every_notebook
def test_it_is_short_and_states_its_exhibit_and_its_cost_first(notebook):
    content = nbformat.read(notebook, as_version=4).cells
    assert len(content) <= 30
    assert re.match(rf"# {notebook.name[:2]} · ", content[0].source)
    assert "*Cost:*" in content[1].source or "*A full run" in content[1].source
    assert "parameters" in content[2].metadata.get("tags", [])


@every_notebook
def test_its_parameters_are_literals(notebook):
    (cell,) = [c for c in cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
    assert any(name.endswith("seeds") for name in batch.parameters(notebook))
    assert re.search(r'^\w*source = "stored"', cell.source, flags=re.MULTILINE)


@every_notebook
def test_what_is_not_trained_by_make_reproduce_is_not_changed_by_what_that_is_asked_for(notebook):
    shared = {"dataset", "seeds", "identities", "samples", "data_root", "backbone", "weights", "image_size"}
    given = shared & batch.parameters(notebook)
    assert "source" in batch.parameters(notebook) or not given
    assert "dataset" not in given or given >= shared - {"samples"}


@every_notebook
def test_its_cells_are_short_and_logic_lives_in_the_library(notebook):
    for cell in cells(notebook):
        tree = ast.parse(code(cell))
        assert len(tree.body) <= (12 if "parameters" in cell.metadata.get("tags", []) else 8), cell.source
        definitions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        assert not definitions or notebook.name[:2] in EXPLAINERS, cell.source
        assert all(d.end_lineno - d.lineno < 15 for d in definitions)


@every_notebook
def test_its_runs_are_asked_for_one_after_the_other(notebook):  # what comes between fails where they are only noted
    asking = [place for place, cell in enumerate(cells(notebook)) if "load_or_run(" in code(cell)]
    assert not asking or asking[-1] - asking[0] == len(asking) - 1


@every_notebook
def test_it_holds_no_path_no_install_and_no_injected_parameters(notebook):
    text = notebook.read_text()
    for forbidden in (str(paths.ROOT), "/home/", "/root/", "!pip", "%cd", "injected-parameters", "Traceback"):
        assert forbidden not in text


def test_a_number_changed_in_a_stored_table_is_found(tmp_path):
    (source,) = paths.NOTEBOOKS.glob("14_*.ipynb")
    text, copy = source.read_text(encoding="utf-8"), tmp_path / source.name
    assert "49.3 ± 1.3" in text
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(copy)]
    environment = os.environ | {"REPROLIB_RESULTS": str(tmp_path)}
    for shown, status in (("49.3 ± 1.3", 0), ("49.4 ± 1.3", 1)):
        copy.write_text(text.replace("49.3 ± 1.3", shown), encoding="utf-8")
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout


@every_notebook
def test_it_was_run_from_top_to_bottom(notebook):
    counts = [c.execution_count for c in cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_it_warned_of_nothing(notebook):
    assert not [o.text for c in cells(notebook) for o in c.outputs if o.get("name") == "stderr"]


@every_notebook
def test_what_differs_from_machine_to_machine_is_provenance_alone(notebook):
    for cell in cells(notebook):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            assert cell.source.startswith("results.provenance(")


def test_every_verdict_that_a_notebook_prints_is_stored():
    printed = {line for notebook in NOTEBOOKS for line in read(notebook).verdicts}
    stored = conclusions(paths.STORED_VERDICTS)
    assert printed == {f"{card['verdict'].upper()}: {card['claim']}" for card in stored}
    assert len(printed) == len(stored)


@every_notebook
def test_no_stored_table_is_cut(notebook):
    assert not re.search(r"\d+ rows × \d+ columns", notebook.read_text(encoding="utf-8"))
