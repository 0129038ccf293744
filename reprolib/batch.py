"""Every notebook by papermill, a process each; the exit status and the scorecard say how it went."""

import ast
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import torch
from tqdm.auto import tqdm

from reprolib import paths
from reprolib.devices import cores
from reprolib.jobs import NOTE_IN, Job, noted

FIRST = ("00", "18", "11", "04", "06", "14", "07")  # they train what the others find trained
LAST = "99"  # the scorecard reads what the others conclude
REPRODUCED = paths.STORED / "reproduced"  # what a user's own runs give, beside the stored ones


def select(names: list[str]) -> list[Path]:
    """The notebooks whose names begin with one of ``names`` ("04", "04_buc"); all of them when there is none.

    Raises:
        ValueError: a name that fits no notebook.
    """
    notebooks = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    unknown = [n for n in names if not any(b.name.startswith(n) for b in notebooks)]
    if unknown:
        raise ValueError(f"no notebook begins with {unknown}; there are {', '.join(b.stem for b in notebooks)}")
    return [b for b in notebooks if not names or b.name.startswith(tuple(names))]


def parameters(notebook: Path) -> set[str]:
    """The names that a notebook's parameters cell sets."""
    cells = nbformat.read(notebook, as_version=4).cells
    source = "".join(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return {t.id for t in targets if isinstance(t, ast.Name)}


def execute(
    notebook: Path, values: dict[str, str], *, results: Path, threads: int, environment: dict[str, str] | None = None
) -> str | None:
    """Run one notebook in a process of its own; its error, or None.

    The executed copy lands in ``<results>/executed``, records, verdicts and figures beside it. ``environment`` is added
    to that of this process.
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
    own = {"REPROLIB_RESULTS": str(results), "REPROLIB_DATA": str(paths.data_root())}  # of this working directory
    own |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads)}
    everything = os.environ | own | (environment or {})
    done = subprocess.run(command, env=everything, cwd=paths.NOTEBOOKS, capture_output=True, text=True)
    return None if done.returncode == 0 else _last_error(done.stderr) or f"ended with status {done.returncode}"


def _last_error(text: str) -> str:
    """What the last exception says, without the trace that leads to it: the executed copy has that."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    named = r"^(?!Exception ignored)[\w.]*(?:Error|Exception|Interrupt|Busy)\b.*"
    found = list(re.finditer(named, plain, flags=re.MULTILINE))
    return (plain[found[-1].start() :] if found else plain).strip()[-2000:]


def reproduce(notebooks: list[Path], values: dict[str, str], *, results: Path = REPRODUCED) -> dict[str, str]:
    """Run the notebooks; {name: error} of those that failed.

    As many run at once as there are cores; one at a time where they train on CUDA.

    Raises:
        ValueError: a parameter that none of the notebooks has.
    """
    require_known(values)
    if notebooks == select([]):  # what is concluded now is all there is
        shutil.rmtree(results / "verdicts", ignore_errors=True)
    return _execute_all(notebooks, values, results=results)


def wanted(notebooks: list[Path], values: dict[str, str]) -> list[Job]:
    """The runs that the notebooks would train, each once; they are executed until they miss the records.

    Raises:
        ValueError: a parameter that none of the notebooks has.
    """
    require_known(values)
    asking = list(filter(_asks, notebooks))
    with TemporaryDirectory() as folder:
        _execute_all(asking, values, results=Path(folder) / "results", environment={NOTE_IN: folder})
        return noted(Path(folder))


def require_known(values: dict[str, str]) -> None:
    """ValueError for a parameter that none of the notebooks has."""
    known = set().union(*map(parameters, select([])))
    if values.keys() - known:
        raise ValueError(f"unknown parameters {sorted(values.keys() - known)}; there are {', '.join(sorted(known))}")


def _in_order(notebooks: list[Path]) -> list[Path]:
    """So that those that run at once seldom wait for the same run, and none trains alone at the end."""
    train = [n for n in notebooks if _asks(n) and "source" in parameters(n)]
    first = sorted(train, key=lambda n: FIRST.index(n.name[:2]) if n.name[:2] in FIRST else len(FIRST))
    return first[:1] + [n for n in notebooks if n not in train] + first[1:]


def _asks(notebook: Path) -> bool:
    """Whether it asks for runs."""
    return "load_or_run(" in notebook.read_text(encoding="utf-8")


def _execute_all(notebooks: list[Path], values: dict[str, str], **how) -> dict[str, str]:
    one_gpu = values.get("source") == "run" and torch.cuda.is_available()  # which has room for one that trains
    workers = 1 if one_gpu else max(1, min(cores(), len(notebooks)))
    others, failures = [n for n in notebooks if not n.name.startswith(LAST)], {}
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

        list(pool.map(work, _in_order(others)))
        list(pool.map(work, [n for n in notebooks if n not in others]))
    return failures
