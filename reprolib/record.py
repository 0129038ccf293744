"""The record of a run: settings, provenance and the results of every stage, in one atomically written JSON file."""

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

DAMAGED = "if it was a record, delete it and run again"
FORMAT = 1  # increased when the fields of a record change their meaning


def require_source(source: str) -> None:
    """Raise ValueError unless the source of results is "stored" (the repository) or "run" (made here)."""
    if source not in ("stored", "run"):
        raise ValueError(f'source={source!r} is not one of "stored", "run"')


class RecordError(ValueError):
    """A record cannot be used; the message names the file and the remedy."""


@dataclass
class RunRecord:
    """One execution of a recipe.

    Attributes:
        settings: dataset, its fingerprint, identities, recipe, backbone, weights, image_size and seed; samples,
            precision and images only if they are not the default.
        provenance: device, threads, precision, versions, commit, date, seconds.
        untrained: metrics of the network before any training.
        stages: a dictionary per stage: stage, num_clusters, losses (one per epoch), metrics, quality (the fields of
            ``reprolib.quality.ClusterQuality``), validity (silhouette and others), seconds (of each part), and
            validation (metrics) in runs on a number of identities.
        selected: the stage kept by the recipe's ``selection``; None while the run is unfinished.
        root: the results folder that the record was read from, if it was; not part of the record.

    Metrics are fractions: rank-1, rank-5, rank-10, rank-20, mAP (trapezoid) and mAP_step; and num_valid_queries. There
    are none if nothing was ranked.
    """

    settings: dict
    provenance: dict
    untrained: dict
    stages: list[dict] = field(default_factory=list)
    selected: int | None = None
    root: ClassVar[Path | None] = None

    def __repr__(self) -> str:
        """Return a short summary; the settings would be long."""
        kept = "unfinished" if self.selected is None else f"kept {self.selected}"
        ranked = f", rank-1 {self.best['rank-1']:.1%}" if self.selected is not None and self.best else ""
        return f"RunRecord({self.name}: {len(self.stages)} stages, {kept}{ranked})"

    @property
    def name(self) -> str:
        """The name of the record's files, without suffix."""
        return run_name(self.settings)

    @property
    def best(self) -> dict:
        """The metrics of the kept stage, which is the best one only if the recipe's ``selection`` is "test"."""
        return self.stages[self.kept]["metrics"]

    @property
    def kept(self) -> int:
        """The index of the kept stage."""
        if self.selected is None:
            raise RecordError(f"{self.name}: the run is not finished; run the same command again to resume it")
        return self.selected

    def curve(self, metric: str) -> list[float]:
        """Return one metric for every stage.

        Raises:
            RecordError: a metric that the stages do not have; without query and gallery they have none.
        """
        try:
            return [stage["metrics"][metric] for stage in self.stages]
        except KeyError as error:
            has = ", ".join(self.stages[0]["metrics"]) or "none, because nothing was ranked"
            raise RecordError(f"{self.name}: no metric {metric!r}; the stages have {has}") from error

    def pseudo_labels(self) -> np.ndarray:
        """Return the pseudo-labels that each stage trained on, (stages, N), in the order of the Split.

        For a named dataset that is the order of training samples in ``load_dataset(name)``; with ``identities`` or
        ``samples`` it is that of its ``keep_identities(identities, seed)`` or ``keep_samples``.

        Raises:
            RecordError: the labels are missing or damaged.
        """
        return self.stored_labels("pseudo_labels")

    def stored_labels(self, name: str) -> np.ndarray:
        """Read an array of ``results/labels/<record>.npz``: "pseudo_labels", or "pids" (only for diagnosis)."""
        file = (self.root / "labels" if self.root else paths.LABELS) / f"{self.name}.npz"
        try:
            with file.open("rb") as opened, np.load(opened) as content:
                return content[name]
        except FileNotFoundError as error:
            raise RecordError(
                f"{file}: the labels of the run are not there; load the record from the results folder of that run, or "
                "run it again with --fresh"
            ) from error
        except Exception as error:  # a damaged archive can fail in any way
            raise RecordError(
                f"{file}: not the labels of a run ({error}); restore it, or run again with --fresh (fresh=True)"
            ) from error

    def save(self) -> Path:
        """Write the record to ``results/runs/<name>.json`` and return its path."""
        file = paths.RUNS / f"{self.name}.json"
        with replacing(file) as partial:
            partial.write_text(_readable(stamped({"format": FORMAT, **asdict(self)})), encoding="utf-8")
        return file


def load_record(file: str | Path) -> RunRecord:
    """Read a record, such as ``results/runs/synthetic_buc_….json``.

    Raises:
        RecordError: a missing file, a file that is not a record, a record of another format, or an edited record.
    """
    file = Path(file)
    if not file.is_file():
        raise RecordError(f"{file}: no such file; use a record, for example one in {paths.RUNS}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise RecordError(f"{file}: written by another version of reprolib; delete it and run again")
        if content["checksum"] != stamped(content)["checksum"]:
            raise RecordError(
                f"{file}: edited since the run (its checksum does not match); restore it, or run again with --fresh"
            )
        record = RunRecord(**{k: v for k, v in content.items() if k not in ("format", "checksum")})
        record.root = file.resolve().parent.parent
        return record
    except RecordError:
        raise
    except KeyError as error:
        raise RecordError(f"{file}: incomplete run record, {error} is missing; {DAMAGED}") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"{file}: not a run record ({error}); {DAMAGED}") from error


def stamped(content: dict) -> dict:
    """Return a record's content with a checksum of all other fields, which detects edits."""
    rest = {k: v for k, v in content.items() if k != "checksum"}
    digest = hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16)
    return {**rest, "checksum": digest.hexdigest()}


def run_name(settings: dict) -> str:
    """Return a readable, unique name: dataset, identities, recipe, backbone, image size, seed, digest of settings."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=4).hexdigest()
    size = "x".join(map(str, settings["image_size"]))
    subset = f"-{settings['identities']}ids" if settings["identities"] else ""
    parts = [settings["dataset"] + subset, settings["recipe"]["name"], settings["backbone"], size]
    return "_".join([*parts, f"seed{settings['seed']}", digest])


def provenance(device: torch.device, precision: str = "float32") -> dict:
    """Describe the hardware and software of a run; ``precision`` is that of the network's products."""
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
    """Return the versions of everything that may change a number."""
    names = ("torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn")
    return {"python": platform.python_version(), **{n: version(n) for n in names}, "cuda": torch.version.cuda}


def own_version() -> str:
    """Return the version of this package; a source tree that is not installed has none."""
    try:
        return version("reprolib")
    except PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """Return the name of the processor as reported by the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit(*folders: str) -> str:
    """Return the checkout's commit, with "+changes" if any of ``folders`` has changed since.

    For a source tree without a git history of its own return ``$REPROLIB_COMMIT``, or "unknown" if that is not set.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(paths.SOURCE), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() == paths.SOURCE:  # not a repository around this folder
            head = git("rev-parse", "--short=12", "HEAD")
            return head + ("+changes" if git("status", "--porcelain", "--", *folders) else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    return os.environ.get("REPROLIB_COMMIT", "unknown")


def write_json(file: Path, content: dict) -> None:
    """Write a small JSON file atomically; several processes may write it at the same time, and the last one wins."""
    with replacing(file, shared=True) as partial:
        partial.write_text(_readable(content), encoding="utf-8")


def _readable(content: dict) -> str:
    """Format JSON with one line per field and, in a list of objects such as the stages, one line per object."""

    def field_text(value) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n ]"
        return json.dumps(value, ensure_ascii=False)

    return "{\n " + ",\n ".join(f"{json.dumps(k)}: {field_text(v)}" for k, v in content.items()) + "\n}\n"
