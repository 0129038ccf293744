"""Batch execution of the notebooks with papermill, one process per notebook."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import torch
from tqdm.auto import tqdm

from reprolib import paths
from reprolib.devices import cores
from reprolib.jobs import NOTE_IN, Job, noted

FIRST = ("00", "18", "11", "04", "06", "14", "07")  # they train runs that the other notebooks then only read
LAST = "99"  # the scorecard, which reads the verdicts of the others
_running: set[subprocess.Popen] = set()  # papermill's processes
REPRODUCED = paths.STORED / "reproduced"  # results of the user's own runs, beside the stored ones


def select(names: list[str]) -> list[Path]:
    """Return the notebooks whose names begin with one of ``names`` ("04", "04_buc"); all notebooks if it is empty.

    Raises:
        ValueError: a name that matches no notebook, or no notebooks at all.
    """
    notebooks = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    if not notebooks:
        raise ValueError(f"{paths.NOTEBOOKS}: no notebooks; {paths.NO_CHECKOUT}")
    unknown = [n for n in names if not any(b.name.startswith(n) for b in notebooks)]
    if unknown:
        raise ValueError(f"no notebook begins with {unknown}; choose from {', '.join(b.stem for b in notebooks)}")
    return [b for b in notebooks if not names or b.name.startswith(tuple(names))]


def parameters(notebook: Path) -> set[str]:
    """Return the names that are set in a notebook's parameters cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    source = "".join(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return {t.id for t in targets if isinstance(t, ast.Name)}


def execute(
    notebook: Path, values: dict[str, str], *, results: Path, threads: int, environment: dict[str, str] | None = None
) -> str | None:
    """Run one notebook in a process of its own; return its error, or None.

    The executed copy is written to ``<results>/executed``; records, verdicts and figures are written beside that
    folder. ``environment`` is added to the environment of this process.
    """
    target = results / "executed" / notebook.name
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        str(target),
        "--no-progress-bar",
        "--log-level",
        "ERROR",
    ]
    for name in sorted(parameters(notebook) & values.keys()):
        command += ["-y", f"{name}: {values[name]}"]
    own = {"REPROLIB_RESULTS": str(results), "REPROLIB_DATA": str(paths.data_root())}  # both absolute
    own |= {"REPROLIB_CACHE": str(paths.CACHE), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads)}
    everything = os.environ | own | (environment or {})
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=everything, cwd=paths.NOTEBOOKS, **pipes) as process:
        _running.add(process)
        _, said = process.communicate()
        _running.remove(process)
    return None if process.returncode == 0 else _last_error(said) or f"ended with status {process.returncode}"


def _last_error(text: str) -> str:
    """Return the message of the last exception without its traceback, which is in the executed copy."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    named = r"^(?!Exception ignored)[\w.]*(?:Error|Exception|Interrupt|Busy)\b.*"
    found = list(re.finditer(named, plain, flags=re.MULTILINE))
    return (plain[found[-1].start() :] if found else plain).strip()[-2000:]


def reproduce(notebooks: list[Path], values: dict[str, str], *, results: Path = REPRODUCED) -> dict[str, str]:
    """Run the notebooks; return {name: error} for those that failed.

    As many notebooks run in parallel as there are cores, but only one at a time if they train on CUDA, or if one of
    them measures.

    Raises:
        ValueError: a parameter that none of the notebooks has.
    """
    require_known(values)
    if notebooks == select([]):  # all verdicts will be made again
        shutil.rmtree(results / "verdicts", ignore_errors=True)
    return _execute_all(notebooks, values, results=results)


def wanted(notebooks: list[Path], values: dict[str, str]) -> list[Job]:
    """Return the runs that the notebooks would train, each once.

    Each notebook is executed with ``$REPROLIB_NOTE_JOBS`` set: it notes its runs, and then fails for lack of records,
    which is ignored.
    """
    asking = list(filter(_asks, notebooks))
    with TemporaryDirectory() as folder:
        _execute_all(asking, values, results=Path(folder) / "results", environment={NOTE_IN: folder})
        return noted(Path(folder))


def require_known(names: Iterable[str], notebooks: list[Path] | None = None) -> None:
    """Raise ValueError for a parameter that none of the notebooks, by default all, has."""
    known = set().union(*map(parameters, notebooks or select([])))
    if unknown := sorted(set(names) - known):
        raise ValueError(f"unknown parameters {unknown}; use {', '.join(sorted(known))}")


def _in_order(notebooks: list[Path]) -> list[Path]:
    """Order the notebooks so that they seldom wait for the same run, and none is left training alone at the end."""
    train = [n for n in notebooks if _asks(n) and "source" in parameters(n)]
    first = sorted(train, key=lambda n: FIRST.index(n.name[:2]) if n.name[:2] in FIRST else len(FIRST))
    return first[:1] + [n for n in notebooks if n not in train] + first[1:]


def _asks(notebook: Path) -> bool:
    """Whether a notebook requests runs."""
    return "load_or_run(" in notebook.read_text(encoding="utf-8")


def _execute_all(notebooks: list[Path], values: dict[str, str], **how) -> dict[str, str]:
    trains = any(name.endswith("source") and value == "run" for name, value in values.items())
    one_gpu = trains and torch.cuda.is_available()  # it has room for only one training process
    measures = values.get("bench_source") == "run"  # which other work would disturb
    workers = 1 if one_gpu or measures else max(1, min(cores(), len(notebooks)))
    others = [n for n in notebooks if not n.name.startswith(LAST)]
    failures: dict[str, str] = {}
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(notebooks), unit="notebook") as bar,
    ):
        under_way: list[str] = []

        def work(notebook: Path) -> None:
            under_way.append(notebook.name[:2])
            bar.set_postfix_str(f"now {', '.join(under_way)}")
            error = execute(notebook, values, threads=max(1, cores() // workers), **how)
            if error is not None:
                failures[notebook.name] = error
            under_way.remove(notebook.name[:2])
            bar.set_postfix_str(f"now {', '.join(under_way)}")
            bar.update()

        try:
            list(pool.map(work, _in_order(others)))
            list(pool.map(work, [n for n in notebooks if n not in others]))
        except BaseException:  # told to stop: the notebooks stop too
            for process in list(_running):
                process.terminate()
            raise
    return failures
