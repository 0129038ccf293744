"""A cluster of two nodes on this machine, one of which is killed in the middle: ``python ray_run.py FOLDER``.

A process of its own, so that Ray's threads and sockets are gone when it ends. What it sees goes to ``FOLDER/seen.json``.
"""

import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import WRITTEN, make_split, tiny_backbone
from tiny_run import NETWORK, QUICK

from reprolib import BUC, DBC, OIM, cluster, jobs, model, paths, state
from reprolib.recipe import BUC_UNREGULARIZED

RECIPES = [replace(r, **QUICK) for r in (BUC, DBC, OIM, BUC_UNREGULARIZED)]


@dataclass(frozen=True)
class TinyJob(jobs.Job):
    """A job of a second wherever it is run, with every epoch saved, and as long as its stage 1 is waited for."""

    folder: str = ""
    pause: float = 0  # seconds after each stage

    def run(self, **options):
        place(Path(self.folder))
        model.load_backbone, state.SAVE_EVERY = tiny_backbone, 0
        show = options.pop("on_stage", lambda *_: None)

        def on_stage(record, stages):
            show(record, stages)
            with (Path(self.folder) / "log").open("a") as log:
                log.write(json.dumps([self.title, len(record.stages), os.environ.get("RAY_NODE_ID", ""), os.getpid()]))
                log.write("\n")
            time.sleep(self.pause)

        return super().run(**options, on_stage=on_stage)


def place(folder: Path) -> None:
    """Keep all that is written in this folder."""
    for name in WRITTEN:
        setattr(paths, name, folder / name.lower())


def tiny_jobs(folder: Path, **options) -> list[TinyJob]:
    return [TinyJob(recipe, make_split(), 0, NETWORK, folder=str(folder), **options) for recipe in RECIPES]
