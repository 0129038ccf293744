"""pyproject.toml, requirements.lock, environment.yml and the documents that repeat them name the same things."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from reprolib.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PIP = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))


def requirements(lines: list[str]) -> list[Requirement]:
    """Parsed, under canonical names."""
    parsed = [Requirement(line) for line in lines]
    for requirement in parsed:
        requirement.name = canonicalize_name(requirement.name)
    return parsed


EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
NEEDED = requirements(PROJECT["dependencies"] + EXTRAS)
LOCKED = requirements(re.findall(r"^(\w[^\\\n]*)", LOCK, flags=re.MULTILINE))


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_lock_pins_every_dependency_once_for_each_python(needed, python):
    here = {"python_version": python, "python_full_version": f"{python}.7"}
    pins = [r for r in LOCKED if r.name == needed.name and (r.marker is None or r.marker.evaluate(here))]
    (pin,) = pins
    assert re.fullmatch(r"==[\w.]+", str(pin.specifier))
    assert needed.specifier.contains(str(pin.specifier).removeprefix("=="))


def test_lock_hashes_every_package():
    entries = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED) > 100
    assert [e for e in entries if not re.search(r"^    --hash=sha256:[0-9a-f]{64}", e, flags=re.MULTILINE)] == []


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml", "pyproject.toml"])
def test_no_address_of_an_index(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-i\b|index-url|find-links|trusted-host", text, flags=re.MULTILINE)


def test_conda_environment_pins_what_the_lock_pins():
    names = {r.name for r in NEEDED}
    pinned = requirements([entry for entry in PIP if entry != "-e ."])
    assert sorted(map(str, pinned)) == sorted(str(r) for r in LOCKED if r.name in names)


def test_conda_environment_adds_only_python_pip_and_this_package():
    assert [entry for entry in CONDA if isinstance(entry, str)] == [f"python{PROJECT['requires-python']}", "pip"]
    assert PIP.count("-e .") == 1


def test_contributing_gives_a_reason_for_each_dependency():
    reasons = re.findall(
        r"^\| `([^`]+)` \| \S.* \| \S.* \|$", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE
    )
    build = requirements(PYPROJECT["build-system"]["requires"])
    assert sorted(map(canonicalize_name, reasons)) == sorted(["uv", *(r.name for r in NEEDED + build)])


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
