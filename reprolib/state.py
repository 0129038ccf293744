"""What a run leaves on disk between stages: folders that get their name when all is in them, and locks."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reprolib import paths
from reprolib.record import write_json

# What the first stage, before any merge, does not depend on: recipes that differ only here share it.
AFTER_FIRST_STAGE = {
    "name",
    "criterion",
    "merge_percent",
    "stage_rule",
    "table_start",
    "later_stage_epochs",
    "later_stage_epochs_video",
    "later_learning_rate",
    "selection",
}


def run_folder(name: str) -> Path:
    """Where the stages of a run are kept."""
    return paths.STATE / name


def first_stage_folder(settings: dict) -> Path:
    """Where the first stage is kept for all runs that have it in common."""
    recipe = {k: v for k, v in settings["recipe"].items() if k not in AFTER_FIRST_STAGE}
    digest = hashlib.blake2b(json.dumps({**settings, "recipe": recipe}, sort_keys=True).encode(), digest_size=8)
    return paths.STATE / f"first_{digest.hexdigest()}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``<folder>.lock``; another process that asks for it waits. The lock of a dead process is free."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder.name}: another process is at it; waiting for its result", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def save_folder(folder: Path, content: dict, model: nn.Module, **arrays: Tensor | np.ndarray) -> None:
    """Write figures, weights and arrays, then give the folder its name."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(partial / f"{name}.npy", np.asarray(array))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial / "model.safetensors")
    write_json(partial / "content.json", content)
    partial.rename(folder)


def load_content(folder: Path) -> dict | None:
    """The figures of a whole folder, or None where there is none."""
    return json.loads((folder / "content.json").read_text()) if folder.exists() else None


def load_weights(folder: Path, model: nn.Module) -> None:
    """Give the model the folder's weights."""
    device = next(model.parameters()).device
    model.load_state_dict(load_file(folder / "model.safetensors", device=str(device)))
