"""The laws of the house that can be read off the code: who imports whom, and who sees an identity."""

import ast
import re
import subprocess
import sys

import pytest

from reprolib import paths
from reprolib.state import BESIDE_A_RUN

LAYERS = [  # a module imports from rows above its own, never from its own
    {"paths", "recipe", "files", "devices", "decoding", "colors", "pages", "capture", "team"},
    {"criteria", "memory", "evaluation", "quality", "record"},
    {"datasets", "images", "model", "state", "timings"},
    {"columns", "epochs"},
    {"assessment", "extraction", "merging", "pretraining", "training"},
    {"plan"},
    {"algorithm", "claims"},
    {"pipeline", "tables", "verdicts"},
    {"jobs"},
    {"audit", "results", "figures", "maps", "cluster"},
    {"batch"},
    {"report"},
    {"cli"},
]
OUTSIDE = {"__init__", "__main__"}
# algorithm hands them to quality, and by assessment to evaluation
SEE_IDENTITIES = {"datasets", "evaluation", "assessment", "quality", "figures", "audit", "algorithm"}


def modules():
    for file in sorted((paths.ROOT / "reprolib").rglob("*.py")):
        name = file.relative_to(paths.ROOT / "reprolib").with_suffix("").parts[0]
        if name not in OUTSIDE:
            yield name, file, ast.parse(file.read_text())


def level(name):
    return next(k for k, layer in enumerate(LAYERS) if name in layer)


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "reprolib":
            parts = node.module.split(".")
            yield from parts[1:2] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("reprolib."))


def test_every_module_has_its_place():
    names = {name for name, _, _ in modules()}
    assert names == set().union(*LAYERS)
    words = (paths.ROOT / "CONTRIBUTING.md").read_text().split()
    assert names == {name for name in names if f"{name}.py" in words or f"{name}/" in words}


@pytest.mark.parametrize(("name", "file", "tree"), list(modules()), ids=lambda value: getattr(value, "stem", ""))
def test_imports_go_down_only(name, file, tree):
    for other in imported(tree):
        assert other == name or level(other) < level(name), f"{file.name} imports {other}"


@pytest.mark.parametrize(("name", "file", "tree"), list(modules()), ids=lambda value: getattr(value, "stem", ""))
def test_no_identity_is_named_where_training_happens(name, file, tree):
    if name in SEE_IDENTITIES:
        return
    named = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)
    }
    named |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not {n for n in named if re.search(r"(^|_)pids?($|_)", n)}, f"{file.name} names an identity"


def test_the_training_set_has_no_identity_to_look_at():
    from reprolib.datasets import Tracklets

    assert not [field for field in Tracklets.__dataclass_fields__ if "pid" in field]


def test_nothing_is_moved_to_cuda_behind_the_callers_back():
    for _, file, _ in modules():
        assert ".cuda()" not in file.read_text(), file


@pytest.mark.parametrize("page", [*paths.ROOT.glob("*.md"), *paths.ROOT.glob("d*/*.md")], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_what_a_run_is_made_with_is_all_that_a_run_imports():
    listed = "import sys, reprolib.pipeline; print(*(name for name in sys.modules if name.startswith('reprolib.')))"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    imported = {name.split(".")[1] for name in done.stdout.split()}
    assert {"pipeline", "merging", "training"} <= imported
    assert not imported & BESIDE_A_RUN
