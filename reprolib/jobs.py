"""Runs that are asked for: trained here, shared with other processes, or noted for a cluster to train."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from reprolib import paths, pipeline
from reprolib.datasets import Split
from reprolib.files import Busy
from reprolib.recipe import Criterion, Recipe
from reprolib.record import RunRecord, write_json

NOTE_IN = "REPROLIB_NOTE_JOBS"  # environment: a folder in which jobs are noted instead of trained


@dataclass(frozen=True)
class Job:
    """One run: what :func:`reprolib.run` is to be called with."""

    recipe: Recipe
    dataset: str | Split
    seed: int = 0
    settings: dict = field(default_factory=dict)  # device, precision, backbone, weights, ...: of reprolib.run

    @property
    def title(self) -> str:
        """What a reader knows it by."""
        return f"{self.recipe.name}, seed {self.seed}"

    def run(self, **options) -> RunRecord:
        """Train it, or read its record; ``options`` are further ones of :func:`reprolib.run`."""
        return pipeline.run(self.recipe, self.dataset, seed=self.seed, **self.settings, **options)

    def start_over(self) -> None:
        """Forget what an earlier run left."""
        pipeline.start_over(self.recipe, self.dataset, seed=self.seed, **self.settings)

    def anywhere(self) -> "Job":
        """The same whatever the working directory and environment: its files named by absolute paths."""
        files = {"data_root": str(paths.data_root(self.settings.get("data_root")))}
        weights = self.settings.get("weights")
        if weights and Path(weights).is_file():
            files["weights"] = str(Path(weights).resolve())
        return replace(self, settings=self.settings | files)


def train(jobs: Sequence[Job]) -> list[RunRecord]:
    """A record for each job, in their order; what another process is at is left to it while there is something else.

    Where ``$REPROLIB_NOTE_JOBS`` names a folder the jobs are noted there, and there are no records.

    Raises:
        ValueError: as for :func:`reprolib.run`.
    """
    if folder := os.environ.get(NOTE_IN):
        for job in jobs:
            if not job.recipe.has_own_linkage:  # a function cannot be noted: the notebook trains it itself
                _note(job.anywhere(), Path(folder))
        return []
    records = {}
    while left := [place for place in range(len(jobs)) if place not in records]:
        for place in left:
            with suppress(Busy):
                records[place] = jobs[place].run(wait=False)
        if not records.keys() & set(left):
            records[left[0]] = jobs[left[0]].run()
    return [records[place] for place in range(len(jobs))]


def _note(job: Job, folder: Path) -> None:
    content = asdict(job)
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
    write_json(folder / f"{job.recipe.name}_{job.seed}_{digest}.json", content)


def noted(folder: Path) -> list[Job]:
    """The jobs that were noted in a folder, each once, by the names of their recipes and their seeds."""
    jobs = []
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        recipe = content.pop("recipe")
        criterion = recipe.pop("criterion")
        jobs.append(Job(Recipe(**recipe, criterion=criterion and Criterion(**criterion)), **content))
    return jobs
