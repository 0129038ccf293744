"""State of a run in progress, on disk: complete stages, a checkpoint of the current stage, and how they were made."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reprolib import paths
from reprolib.files import discard, replacing
from reprolib.record import own_version, versions

SAVE_EVERY = 60  # minimum number of seconds between two checkpoints of a stage

# Settings that do not affect the first stage, before any merge: recipes that differ only in these share that stage.
AFTER_FIRST_STAGE = {
    "name",
    "criterion",
    "merge_percent",
    "stage_rule",
    "table_start",
    "later_stage_epochs",
    "later_stage_epochs_video",
    "later_learning_rate",
    "frames_at_most",
    "junk",
    "selection",
}
RANKED_ON = ("query", "gallery", "validation")  # sets that do not affect it either
# Modules that are not used by a run.
BESIDE_A_RUN = {
    "audit",
    "claims",
    "columns",
    "verdicts",
    "jobs",
    "cluster",
    "results",
    "tables",
    "report",
    "pages",
    "figures",
    "maps",
    "timings",
    "batch",
    "cli",
}


class StateError(ValueError):
    """A run cannot be resumed from its saved state; the message names the state and the remedy."""


def _source_digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    package = paths.SOURCE / "reprolib"
    for file in sorted(package.rglob("*.py")):
        if Path(file.relative_to(package).parts[0]).stem not in BESIDE_A_RUN:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


SOURCE = _source_digest()  # computed at import: a notebook's kernel does not use later changes


def make_origin(settings: dict, **others: str) -> dict:
    """Return everything that must be unchanged to resume from saved state: code, versions, settings."""
    return {"reprolib": f"{own_version()}, source {SOURCE}", **versions(), **others, **settings}


def first_stage(settings: dict) -> dict:
    """Return the part of the settings, or of an origin, that affects training the first stage."""
    recipe = {k: v for k, v in settings["recipe"].items() if k not in AFTER_FIRST_STAGE}
    beside = {*RANKED_ON, "linkage"} | ({"train identities"} if recipe["start"] != "identities" else set())
    return {k: v for k, v in settings.items() if k not in beside} | {"recipe": recipe}


def first_stage_folder(settings: dict) -> Path:
    """Return the folder of the first stage, which is shared by all runs that have it in common."""
    digest = hashlib.blake2b(json.dumps(first_stage(settings), sort_keys=True).encode(), digest_size=8)
    return paths.STATE / f"first_{digest.hexdigest()}"


def forget(folder: Path) -> None:
    """Remove a stage's folder and its checkpoint."""
    discard(folder)
    Checkpoint(folder, {}).forget()


def save_folder(folder: Path, origin: dict, content: dict, model: nn.Module, **arrays: Tensor | np.ndarray) -> None:
    """Write results, weights and arrays to a folder, atomically."""
    with replacing(folder) as partial:
        partial.mkdir()
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", np.asarray(array))
        (partial / "model.safetensors").write_bytes(save({k: v.contiguous() for k, v in model.state_dict().items()}))
        (partial / "content.json").write_text(json.dumps({"origin": origin, **content}, indent=1), encoding="utf-8")


def load_content(folder: Path, origin: dict, *, shared: bool = False) -> dict | None:
    """Read the results from a stage's folder; None if there is none.

    ``shared``: the folder is shared between runs, so that one with another origin is treated as missing.

    Raises:
        StateError: the folder is damaged, or its origin differs from ``origin``.
    """
    if not folder.exists():
        return None
    with _explained(folder):
        content = json.loads((folder / "content.json").read_text(encoding="utf-8"))
        then = content.pop("origin", {})
        if shared and then != origin:
            return None
        require_same(folder, then, origin)
    return content


def load_array(folder: Path, name: str) -> np.ndarray:
    """Read an array from the folder.

    Raises:
        StateError: the array is damaged.
    """
    with _explained(folder):
        return np.load(folder / f"{name}.npy")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load the weights in the folder into the model."""
    device = next(model.parameters()).device
    with _explained(folder):
        model.load_state_dict(load_file(folder / "model.safetensors", device=str(device)))


class Checkpoint:
    """The current stage: one file with everything that its next epoch depends on, updated at the end of epochs."""

    def __init__(self, folder: Path, origin: dict):
        """Take ``folder``, the place of the stage when it is complete."""
        self.file = folder.with_name(f"{folder.name}.training.safetensors")
        self.origin = origin
        self.seconds = 0.0  # spent by earlier processes on the saved epochs
        self._begun = self._saved = time.monotonic()

    def load(self) -> dict[str, Tensor]:
        """Return the tensors saved last, by name and on the host; empty if nothing was saved.

        Raises:
            StateError: as for :func:`load_content`.
        """
        if not self.file.exists():
            return {}
        with _explained(self.file), safe_open(self.file, "pt") as content:
            require_same(self.file, json.loads(content.metadata()["origin"]), self.origin)
            self.seconds = float(content.metadata()["seconds"])
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118

    def save(self, tensors: dict[str, Tensor]) -> None:
        """Write the tensors, unless the last save was less than ``SAVE_EVERY`` seconds ago."""
        now = time.monotonic()
        if now - self._saved < SAVE_EVERY:
            return
        metadata = {"origin": json.dumps(self.origin), "seconds": str(self.seconds + now - self._begun)}
        with replacing(self.file) as partial:  # save_file would leave a file behind if the process were killed
            partial.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, metadata))
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Remove the file: the stage is complete, or no longer wanted."""
        discard(self.file)


def require_same(place: Path, then: dict, now: dict) -> None:
    """Raise StateError if the origin of saved state differs from the current one; the message lists the differences."""
    if then == now:
        return
    changes = [f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in {**now, **then} if then.get(k) != now.get(k)]
    what = "; ".join(changes) if then else "it does not say how it was made"
    if then.get("linkage") != now.get("linkage"):
        what += " (to keep both, give the function another name)"
    raise StateError(
        f"{place}: saved by an earlier run that must not be mixed with this one: {what}. "
        "Restore what it was made with, or start over with --fresh (in Python: fresh=True)"
    )


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except StateError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise StateError(f"{place}: damaged ({error}); start over with --fresh (in Python: fresh=True)") from error
