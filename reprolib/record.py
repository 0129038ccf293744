"""A run's record: settings, provenance and every stage's figures, as one JSON file written whole or not at all."""

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from reprolib import paths
from reprolib.files import replacing

DAMAGED = "give another file, or, if it was one, delete it and run again"
FORMAT = 1  # raised when a record's fields change meaning


def require_source(source: str) -> None:
    """ValueError for a source of results that is neither the repository ("stored") nor what is made here ("run")."""
    if source not in ("stored", "run"):
        raise ValueError(f'source={source!r} is not one of "stored", "run"')


class RecordError(ValueError):
    """A record that cannot be used; the message names the file and the remedy."""


@dataclass
class RunRecord:
    """One execution of a recipe. Metrics are fractions; tables print percent."""

    settings: dict  # dataset, its fingerprint, identities, recipe, backbone, weights, image_size, seed, precision
    provenance: dict  # device, versions, commit, when, wall time
    untrained: dict  # metrics of the network before any training
    stages: list[dict] = field(default_factory=list)  # stage, num_clusters, losses, metrics, quality, validity, seconds
    selected: int | None = None  # the stage kept by settings["recipe"]["selection"]; None while unfinished
    root: ClassVar[Path | None] = None  # of a record that was read: the results it lies in; not a part of it

    def __repr__(self) -> str:
        """Short: the settings are long."""
        kept = "unfinished" if self.selected is None else f"kept {self.selected}"
        ranked = f", rank-1 {self.best['rank-1']:.1%}" if self.selected is not None and self.best else ""
        return f"RunRecord({self.name}: {len(self.stages)} stages, {kept}{ranked})"

    @property
    def name(self) -> str:
        """What the record's files are called."""
        return run_name(self.settings)

    @property
    def best(self) -> dict:
        """The metrics of the stage kept."""
        return self.stages[self.kept]["metrics"]

    @property
    def kept(self) -> int:
        """The stage kept."""
        if self.selected is None:
            raise RecordError(f"{self.name}: the run is not finished; the same command goes on with it")
        return self.selected

    def curve(self, metric: str) -> list[float]:
        """One metric of every stage."""
        return [stage["metrics"][metric] for stage in self.stages]

    def pseudo_labels(self) -> np.ndarray:
        """The clusters that each stage trained on, (stages, N): of the training samples, in the order of the Split.

        A named dataset's is that of ``load_dataset(name)``; with ``identities``, or ``samples``, that of its
        ``keep_identities(identities, seed)``, or ``keep_samples``. Raises RecordError where no labels are to be found.
        """
        return self.stored_labels("pseudo_labels")

    def stored_labels(self, name: str) -> np.ndarray:
        """An array of ``results/labels/<record>.npz``: "pseudo_labels", or "pids", which are for diagnosis alone."""
        places = [self.root / "labels"] if self.root else []
        for folder in (*places, paths.LABELS, paths.STORED_LABELS):
            if (file := folder / f"{self.name}.npz").exists():
                try:
                    with file.open("rb") as opened, np.load(opened) as content:
                        return content[name]
                except Exception as error:  # a damaged archive fails in any way
                    raise RecordError(f"{file}: not the labels of a run ({error}); {DAMAGED}") from error
        raise RecordError(
            f"{(places or [paths.LABELS])[0]}: holds no {self.name}.npz, the run's labels; set REPROLIB_RESULTS to the "
            "folder in which it was run, or run it again with --fresh"
        )

    def save(self) -> Path:
        """Write ``results/runs/<name>.json``."""
        file = paths.RUNS / f"{self.name}.json"
        with replacing(file) as partial:
            partial.write_text(_readable(stamped({"format": FORMAT, **asdict(self)})), encoding="utf-8")
        return file


def load_record(file: str | Path) -> RunRecord:
    """Read a record, such as ``results/runs/synthetic_buc_….json``.

    Raises:
        RecordError: no such file, not a record, one of another format, or one that was edited.
    """
    file = Path(file)
    if not file.is_file():
        raise RecordError(f"{file}: no such file; give a record, such as one of {paths.RUNS}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise RecordError(f"{file}: a record of another version of reprolib; delete it and run again")
        if content["checksum"] != stamped(content)["checksum"]:
            raise RecordError(f"{file}: edited since the run: its checksum is another; restore it, or run --fresh")
        record = RunRecord(**{k: v for k, v in content.items() if k not in ("format", "checksum")})
        record.root = file.resolve().parent.parent
        return record
    except RecordError:
        raise
    except KeyError as error:
        raise RecordError(f"{file}: not a whole run record, without {error}; {DAMAGED}") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"{file}: not a run record ({error}); {DAMAGED}") from error


def stamped(content: dict) -> dict:
    """A record's content with the checksum of all the rest, which an edit breaks."""
    rest = {k: v for k, v in content.items() if k != "checksum"}
    digest = hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16)
    return {**rest, "checksum": digest.hexdigest()}


def run_name(settings: dict) -> str:
    """Readable and unique: dataset, identities, recipe, backbone, image size, seed, and a digest of all settings."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=4).hexdigest()
    size = "x".join(map(str, settings["image_size"]))
    subset = f"-{settings['identities']}ids" if settings["identities"] else ""
    parts = [settings["dataset"] + subset, settings["recipe"]["name"], settings["backbone"], size]
    return "_".join([*parts, f"seed{settings['seed']}", digest])


def provenance(device: torch.device, precision: str = "float32") -> dict:
    """Where and with what a run is made; ``precision`` is that of the network's products."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "versions": versions(),
        "commit": commit("reprolib", "benchmarks"),
        "date": datetime.now(UTC).date().isoformat(),
        "average_precision": "mAP: trapezoid, as both programs; mAP_step: step sum, as most libraries",
    }


def versions() -> dict:
    """Of everything whose version may move a figure."""
    names = ("torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn")
    return {"python": platform.python_version(), **{n: version(n) for n in names}, "cuda": torch.version.cuda}


def own_version() -> str:
    """Of this package; a source tree that nobody installed has none."""
    try:
        return version("reprolib")
    except PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """Of the processor, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit(*folders: str) -> str:
    """The checkout's commit, "+changes" if any of ``folders`` has changed since.

    Of a source tree without its history, what ``$REPROLIB_COMMIT`` says; else "unknown".
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if git("status", "--porcelain", "--", *folders) else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("REPROLIB_COMMIT", "unknown")


def write_json(file: Path, content: dict) -> None:
    """Write a small file whole or not at all; several processes may do so at once, and the last one stays."""
    with replacing(file, shared=True) as partial:
        partial.write_text(_readable(content), encoding="utf-8")


def _readable(content: dict) -> str:
    """JSON with a line for each field and, in a list of objects such as the stages, for each object."""

    def field_text(value) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n ]"
        return json.dumps(value, ensure_ascii=False)

    return "{\n " + ",\n ".join(f"{json.dumps(k)}: {field_text(v)}" for k, v in content.items()) + "\n}\n"
