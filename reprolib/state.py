"""What a run leaves on disk while it is under way: whole stages, the stage in the making, and what made them."""

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

SAVE_EVERY = 60  # seconds, at least, from one save of a stage in the making to the next

# What training the first stage, before any merge, does not depend on: recipes that differ only here share it.
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
RANKED_ON = ("query", "gallery", "validation")  # nor on these sets
# No run executes these.
BESIDE_A_RUN = {
    "audit",
    "claims",
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
    """State of a run that cannot be gone on from; the message names it and the remedy."""


def _source_digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    package = paths.ROOT / "reprolib"
    for file in sorted(package.rglob("*.py")):
        if Path(file.relative_to(package).parts[0]).stem not in BESIDE_A_RUN:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


SOURCE = _source_digest()  # of the code as imported: a notebook's kernel does not see later changes


def make_origin(settings: dict, **others: str) -> dict:
    """What state is made with, all of which must be the same where a run goes on: code, versions, settings."""
    return {"reprolib": f"{own_version()}, source {SOURCE}", **versions(), **others, **settings}


def first_stage(settings: dict) -> dict:
    """What of the settings, or of an origin, training the first stage depends on."""
    recipe = {k: v for k, v in settings["recipe"].items() if k not in AFTER_FIRST_STAGE}
    beside = {*RANKED_ON, "linkage"} | ({"train identities"} if recipe["start"] != "identities" else set())
    return {k: v for k, v in settings.items() if k not in beside} | {"recipe": recipe}


def run_folder(name: str) -> Path:
    """Where the stages of a run are kept."""
    return paths.STATE / name


def first_stage_folder(settings: dict) -> Path:
    """Where the first stage is kept for all runs that have it in common."""
    digest = hashlib.blake2b(json.dumps(first_stage(settings), sort_keys=True).encode(), digest_size=8)
    return paths.STATE / f"first_{digest.hexdigest()}"


def forget(folder: Path) -> None:
    """Remove a folder of this module, and the stage in the making that would have become it."""
    discard(folder)
    Checkpoint(folder, {}).forget()


def save_folder(folder: Path, origin: dict, content: dict, model: nn.Module, **arrays: Tensor | np.ndarray) -> None:
    """Write figures, weights and arrays, then give the folder its name."""
    with replacing(folder) as partial:
        partial.mkdir()
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", np.asarray(array))
        (partial / "model.safetensors").write_bytes(save({k: v.contiguous() for k, v in model.state_dict().items()}))
        (partial / "content.json").write_text(json.dumps({"origin": origin, **content}, indent=1), encoding="utf-8")


def load_content(folder: Path, origin: dict, *, shared: bool = False) -> dict | None:
    """The figures of a whole folder, or None where there is none.

    ``shared``: between runs, so that one of another origin is nobody's loss, and is as if there were none.

    Raises:
        StateError: it is damaged, or was made with something else than ``origin``.
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
    """An array of the folder.

    Raises:
        StateError: it is damaged.
    """
    with _explained(folder):
        return np.load(folder / f"{name}.npy")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Give the model the folder's weights."""
    device = next(model.parameters()).device
    with _explained(folder):
        model.load_state_dict(load_file(folder / "model.safetensors", device=str(device)))


class Checkpoint:
    """A stage in the making: one file of what its next epoch depends on, renewed as epochs end."""

    def __init__(self, folder: Path, origin: dict):
        """``folder``: where the stage goes when it is whole."""
        self.file = folder.with_name(f"{folder.name}.training.safetensors")
        self.origin = origin
        self.seconds = 0.0  # that processes before this one spent on what is saved
        self._begun = self._saved = time.monotonic()

    def load(self) -> dict[str, Tensor]:
        """What was saved last, by name and on the host; empty where nothing was.

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
        """Write the tensors, unless that was done less than ``SAVE_EVERY`` seconds ago."""
        now = time.monotonic()
        if now - self._saved < SAVE_EVERY:
            return
        metadata = {"origin": json.dumps(self.origin), "seconds": str(self.seconds + now - self._begun)}
        with replacing(self.file) as partial:  # save_file would leave a file of its own where the process is killed
            partial.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, metadata))
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Remove the file: the stage is whole, or not wanted any more."""
        discard(self.file)


def require_same(place: Path, then: dict, now: dict) -> None:
    """Raise StateError where what something was made with and what there is now differ, saying in what."""
    if then == now:
        return
    changes = [f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in {**now, **then} if then.get(k) != now.get(k)]
    what = "; ".join(changes) if then else "it does not say with what it was made"
    raise StateError(
        f"{place}: saved by an earlier run that is not to be mixed with this one: {what}. "
        "Go back to what it was made with, or start over: --fresh (in Python: fresh=True)"
    )


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except StateError:
        raise
    except Exception as error:  # a damaged file fails in any way
        raise StateError(f"{place}: damaged ({error}); start over: --fresh (in Python: fresh=True)") from error
