"""Two runs, one after the other, in each of the processes that torchrun starts: ``torchrun_run.py FOLDER``."""

import atexit
import os
import sys
from dataclasses import replace
from pathlib import Path

from conftest import WRITTEN, make_split, tiny_backbone
from tiny_run import NETWORK, QUICK

import reprolib
from reprolib import BUC, OIM, model, paths


@atexit.register
def fail_if_the_group_has_not_ended():
    """Threads that outlive it are cut off with the interpreter, which aborts the process every now and then."""
    names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if any("gloo" in name for name in names):
        print(f"threads that are left: {names}", file=sys.stderr, flush=True)
        os._exit(1)


for name in WRITTEN:
    setattr(paths, name, Path(sys.argv[1]) / name.lower())
model.load_backbone = tiny_backbone
for recipe in (BUC, OIM):
    reprolib.run(replace(recipe, **QUICK), make_split(), **NETWORK)
