"""Jobs: runs to be trained here, shared with other processes, or noted down for a cluster to train."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from reprolib import paths, pipeline
from reprolib.datasets import Split
from reprolib.files import Busy, locked
from reprolib.plan import make_plan
from reprolib.recipe import Criterion, Recipe
from reprolib.record import RunRecord, write_json

NOTE_IN = "REPROLIB_NOTE_JOBS"  # environment variable: a folder in which jobs are noted down instead of trained


@dataclass(frozen=True)
class Job:
    """One run: the arguments for :func:`reprolib.run`."""

    recipe: Recipe
    dataset: str | Split
    seed: int = 0
    settings: dict = field(default_factory=dict)  # further arguments of reprolib.run: device, precision, backbone, ...

    @property
    def title(self) -> str:
        """Recipe and seed, for messages and progress bars."""
        return f"{self.recipe.name}, seed {self.seed}"

    def run(self, **options) -> RunRecord:
        """Train the run or read its record; ``options`` are further arguments of :func:`reprolib.run`."""
        return pipeline.run(self.recipe, self.dataset, seed=self.seed, **self.settings, **options)

    def start_over(self) -> None:
        """Delete what an earlier run left, including the first stage that it shares with other runs."""
        plan = make_plan(self.recipe, self.dataset, seed=self.seed, **self.settings)
        with locked(plan.folder):
            plan.forget()

    def anywhere(self) -> "Job":
        """Return the same job with absolute paths, independent of the working directory and the environment."""
        files = {"data_root": str(paths.data_root(self.settings.get("data_root")))}
        weights = self.settings.get("weights")
        if weights and Path(weights).is_file():
            files["weights"] = str(Path(weights).resolve())
        return replace(self, settings=self.settings | files)


def train(jobs: Sequence[Job]) -> list[RunRecord]:
    """Return a record for each job, in their order.

    A job that another process is working on is skipped as long as other jobs remain. If ``$REPROLIB_NOTE_JOBS`` names a
    folder, the jobs are only noted down there and the result is empty.

    Raises:
        ValueError: as for :func:`reprolib.run`.
    """
    if folder := os.environ.get(NOTE_IN):
        for job in jobs:
            if not job.recipe.has_own_linkage:  # a function cannot be noted down: the notebook trains that run itself
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
    """Return the jobs noted down in a folder, each once, sorted by recipe name and seed."""
    jobs = []
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        recipe = content.pop("recipe")
        criterion = recipe.pop("criterion")
        jobs.append(Job(Recipe(**recipe, criterion=criterion and Criterion(**criterion)), **content))
    return jobs
