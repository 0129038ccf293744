"""Read off the sources: nothing that is read may run code, and nothing that is started listens to strangers."""

import ast
import os
import re

import pytest

from reprolib import cluster, paths

FILES = sorted((paths.ROOT / "reprolib").rglob("*.py"))
RUN_CODE = {  # what would run code that it reads, or write where a file says
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "shutil.unpack_archive",
}


def calls():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield file.name, ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_nothing_is_called_that_runs_what_it_reads():
    assert [(file, name) for file, name, _ in calls() if name in RUN_CODE] == []


def test_every_torch_load_takes_tensors_alone():
    options = [(file, given.get("weights_only")) for file, name, given in calls() if name == "torch.load"]
    assert options == [("model.py", "True")]


def test_no_array_is_read_as_a_pickle_and_no_process_is_started_by_a_shell():
    assert [(f, n) for f, n, given in calls() if given.keys() & {"allow_pickle", "shell"}] == []


def test_the_one_unpickler_builds_arrays_and_calls_nothing_else():
    users = [f.name for f in FILES if re.search(r"^(import|from) (pickle|cloudpickle|dill)\b", f.read_text(), re.M)]
    assert users == ["cifar10.py", "model.py"]  # model.py names its error
    (unpickler,) = [
        node
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)
    ]
    assert "find_class" in [f.name for f in unpickler.body if isinstance(f, ast.FunctionDef)]


def test_archives_are_unpacked_by_our_own_checked_function_alone():
    assert [(f, n) for f, n, _ in calls() if n.split(".")[-1] in ("extractall", "extract") and "." in n] == []


@pytest.mark.parametrize("option", ["--ServerApp.ip=127.0.0.1", "--ServerApp.allow_remote_access=False"])
def test_make_lab_listens_on_loopback_with_its_token(option):
    makefile = (paths.ROOT / "Makefile").read_text()
    assert option in makefile
    assert "token=" not in makefile
    assert "password=" not in makefile


def test_a_cluster_of_this_machine_alone_listens_on_loopback_has_no_dashboard_and_reports_no_usage(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: make setup")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    asked = {}
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    with cluster._connected(None):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert (asked["address"], asked["_node_ip_address"], asked["include_dashboard"]) == ("local", "127.0.0.1", False)
