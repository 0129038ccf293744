"""Two runs, one after the other, in each of the processes that torchrun starts: ``torchrun_run.py FOLDER``."""

import sys
from dataclasses import replace
from pathlib import Path

from conftest import WRITTEN, make_split, tiny_backbone
from tiny_run import NETWORK, QUICK

import reprolib
from reprolib import BUC, OIM, model, paths

for name in WRITTEN:
    setattr(paths, name, Path(sys.argv[1]) / name.lower())
model.load_backbone = tiny_backbone
for recipe in (BUC, OIM):
    reprolib.run(replace(recipe, **QUICK), make_split(), **NETWORK)
