"""A run of a second in a process of its own, to be killed, starved and set against another."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from conftest import WRITTEN, make_split, tiny_backbone

import reprolib
from reprolib import BUC, algorithm, jobs, model, paths, state
from reprolib.record import RunRecord, load_record

QUICK = {"merge_percent": 0.25, "first_stage_epochs": 4, "embedding_dim": 32}
NETWORK = {"backbone": "resnet18", "weights": "none", "image_size": (32, 16), "device": "cpu"}

processes = multiprocessing.get_context("forkserver")  # imports torch once, then forks in a moment
processes.set_forkserver_preload(["reprolib", "pytest"])


def start(folder: Path, target=None, **options) -> multiprocessing.Process:
    """Begin ``work``, or another of these, in another process; what it prints is added to ``<folder>/log``."""
    folder.mkdir(exist_ok=True)
    process = processes.Process(target=target or work, args=(folder,), kwargs=options)
    process.start()
    return process


def work(
    folder: Path,
    *,
    epochs: int = 4,
    save_every: float = 0,
    die_at_write: int | None = None,
    largest_file: int | None = None,
) -> None:
    """Run BUC; every epoch is saved, or where ``save_every`` seconds have gone by."""
    _prepare(folder, "training")
    state.SAVE_EVERY = save_every
    if die_at_write:
        _die_at_write(die_at_write)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    recipe = replace(BUC, **QUICK | {"first_stage_epochs": epochs})
    reprolib.run(recipe, make_split(), **NETWORK)


def share(folder: Path, *, name: str, seeds: int) -> None:
    """Ask for BUC with so many seeds at the same time as another does; ``<folder>/<name>`` says whose records came."""
    _prepare(folder, f"training by {name}")
    (folder / f"{name}.ready").touch()
    while len(list(folder.glob("*.ready"))) < 2:
        time.sleep(0.01)
    recipe = replace(BUC, **QUICK)
    records = jobs.train([jobs.Job(recipe, make_split(), seed, NETWORK) for seed in range(seeds)])
    (folder / name).write_text(" ".join(str(record.settings["seed"]) for record in records))


def _prepare(folder: Path, announcement: str) -> None:
    """Keep all that this process writes in the folder, save every epoch, say when a stage is trained."""
    sys.stdout = sys.stderr = (folder / "log").open("a", buffering=1)
    for name in WRITTEN:
        setattr(paths, name, folder / name.lower())
    model.load_backbone, state.SAVE_EVERY = tiny_backbone, 0
    train_stage = algorithm.train_stage
    algorithm.train_stage = lambda *a, **k: print(announcement) or train_stage(*a, **k)


def _die_at_write(last: int) -> None:
    """Let the process kill itself when it flushes a file for the last time."""
    flush, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = fsync


def the_record(folder: Path) -> RunRecord:
    """The one record that the runs in ``folder`` left."""
    (file,) = (folder / "runs").glob("*.json")
    return load_record(file)


def figures(record: RunRecord) -> dict:
    """All that must be equal from run to run: everything but the clock."""
    stages = [{k: v for k, v in stage.items() if k != "seconds"} for stage in record.stages]
    provenance = {k: v for k, v in record.provenance.items() if k not in ("seconds", "date")}
    return {**asdict(record), "stages": stages, "provenance": provenance}


def leftovers(folder: Path) -> list[str]:
    """What is neither a lock nor a whole file or folder."""
    return [
        f.name for f in folder.rglob("*") if f.name.endswith(".partial") or ".training." in f.name or f.name[0] == "."
    ]
