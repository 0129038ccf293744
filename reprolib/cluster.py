"""Runs on many machines by Ray: each goes to a worker with the GPU it asks for, and on elsewhere if that is lost."""

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from reprolib import paths
from reprolib.devices import choose_device, choose_precision
from reprolib.files import Busy, locked
from reprolib.jobs import Job
from reprolib.record import RunRecord, versions
from reprolib.state import SOURCE

RETRIES = 3  # of a run whose worker was lost
OBJECT_STORE = 100 * 2**20  # bytes of a local cluster's: runs exchange files, not objects


class ClusterError(ValueError):
    """Runs that a cluster cannot do; the message says why and what to do."""


def train(jobs: Sequence[Job], *, address: str | None = None, results: Path = paths.RESULTS) -> list[RunRecord]:
    """A record for each job, in their order, each trained by a worker of its own: on a GPU, or on a core of a CPU.

    State and records are kept in the folder ``results``, which all machines must share: a run whose worker is lost
    goes on after the last epoch saved. Without an address a cluster of this machine alone is started, and stopped at
    the end; where this process is connected to a cluster already, that one is used.

    Raises:
        ClusterError: there is no Ray, no cluster or no such device; or runs failed, after all others have ended.
    """
    if not jobs:
        return []
    records, failures = {}, {}
    with _connected(address) as ray, _home(results / "state") as home, _View(jobs) as view:
        board = _start_board(ray)
        send = _sender(ray, jobs, board, home, results)
        pending = {send(place): place for place in range(len(jobs))}
        while pending:
            done, _ = ray.wait(list(pending), timeout=1)
            view.show(ray.get(board.read.remote()))
            for reference in done:
                place = pending.pop(reference)
                try:
                    record = ray.get(reference)
                except ray.exceptions.RayError as error:
                    failures[place] = _reason(error)
                    continue
                if record is None:  # another worker is at it, or at its first stage: to the end of the queue
                    pending[send(place, wait=True)] = place
                else:
                    records[place] = record
                    view.end(place)
    if failures:
        lines = "\n".join(f"  {jobs[place].title}: {reason}" for place, reason in failures.items())
        raise ClusterError(f"{len(failures)} of {len(jobs)} runs failed; the same command goes on with them:\n{lines}")
    return [records[place] for place in range(len(jobs))]


def _start_board(ray):
    """The board, on this machine: it must outlive the others."""
    here = ray.get_runtime_context().get_node_id()
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(_Board).options(num_cpus=0, scheduling_strategy=strategy).remote()


def _sender(ray, jobs: Sequence[Job], board, home: "_Home", results: Path) -> Callable:
    """``send(place)`` puts a job in Ray's queue and returns the reference of its record to come."""
    environment = {"REPROLIB_RESULTS": str(results), "TQDM_DISABLE": "1"}
    gpus = ray.cluster_resources().get("GPU", 0)
    options = {"max_retries": RETRIES, "runtime_env": {"env_vars": environment}}

    def send(place: int, *, wait: bool = False):
        job = jobs[place].anywhere()
        job = replace(job, settings=job.settings | {"precision": _precision(job)})
        return ray.remote(_work).options(**options, **_resources(job, gpus)).remote(job, place, board, home, wait)

    return send


@contextmanager
def _connected(address: str | None) -> Iterator:
    """Ray, connected to a cluster."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ClusterError("Ray is not installed: make setup, or in the checkout pip install '.[cluster]'") from error
    if ray.is_initialized():
        yield ray
        return
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:  # no one else's: address None would look for one
        own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": OBJECT_STORE}
        options |= {"address": "local", **own}
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except Exception as error:  # whatever Ray raises, some of it of no other class
        where = f"no cluster at {address}" if address else "no cluster could be started on this machine"
        raise ClusterError(f"{where} ({error}); see docs/cluster.md") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _resources(job: Job, gpus: float) -> dict[str, int]:
    """What a job's worker must have, on a cluster of so many GPUs."""
    device = str(job.settings.get("device") or "")
    if device.removeprefix("cuda:").isdecimal():
        raise ClusterError(f"device {device!r}: a worker sees its own GPU alone; give cuda")
    if device.startswith("cuda") and not gpus:
        raise ClusterError(f"device {device!r}: the cluster has no GPU; give cpu, or start workers where there is one")
    return {"num_gpus": 1} if gpus and device != "cpu" else {"num_cpus": 1}


def _precision(job: Job) -> str:
    """The one asked for, else what the device asked for takes, else this machine's: a record is named by it."""
    device = job.settings.get("device") or choose_device(None)
    kind = torch.device("cuda" if str(device).startswith("cuda") else "cpu")
    return job.settings.get("precision") or choose_precision(None, kind)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    if isinstance(cause, ValueError):  # ours
        return str(cause)
    return str(error) if cause else f"its worker was lost {RETRIES + 1} times ({error})"


@dataclass(frozen=True)
class _Home:
    """What a worker must have in common with the process that sends it runs."""

    token: Path  # its lock is held there
    made_with: dict[str, str]

    def check(self) -> None:
        """Raise ClusterError where results would be lost, or made otherwise."""
        place = f"worker on {os.uname().nodename}"
        other = {"reprolib": SOURCE, **versions()}
        changes = [f"{k} is {v} at home, {other.get(k)} here" for k, v in self.made_with.items() if v != other.get(k)]
        if changes:
            raise ClusterError(f"{place}: {'; '.join(changes)}: start Ray from the same checkout and requirements.lock")
        if not self.token.with_name(f"{self.token.name}.lock").exists():
            raise ClusterError(f"{place}: it does not see {self.token.parent}: put the checkout on a folder all share")
        try:
            with locked(self.token, wait=False):
                raise ClusterError(
                    f"{place}: locks on {self.token.parent} do not reach it: mount it with locks (flock)"
                )
        except Busy:
            pass


@contextmanager
def _home(state: Path) -> Iterator[_Home]:
    token = state / f"cluster-{uuid.uuid4().hex[:8]}"
    with locked(token):
        try:
            yield _Home(token, {"reprolib": SOURCE, **versions()})
        finally:
            token.with_name(f"{token.name}.lock").unlink()


def _work(job: Job, place: int, board, home: _Home, wait: bool) -> RunRecord | None:
    """On a worker: the job's record, or None where another is at it and it is not to be waited for."""
    home.check()

    def show(record: RunRecord, stages: int) -> None:
        board.show.remote(place, len(record.stages), stages, record.stages[-1]["metrics"].get("rank-1"))

    try:
        return job.run(wait=wait, on_stage=show)
    except Busy:
        return None


class _Board:
    """Where workers say how far they are: an actor on the machine of the process that sends the runs."""

    def __init__(self):
        self.seen = {}

    def show(self, place: int, *progress: float | None) -> None:
        self.seen[place] = progress

    def read(self) -> dict[int, tuple]:
        """By the place of the job: stages done, stages in all, rank-1 if anything is ranked."""
        return self.seen


class _View:
    """A bar over all runs, and one for each that is under way."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs, self.bars = jobs, {}

    def __enter__(self):
        self.total = tqdm(total=len(self.jobs), unit="run")
        return self

    def __exit__(self, *_):
        for bar in (*self.bars.values(), self.total):
            bar.close()

    def show(self, seen: dict[int, tuple]) -> None:
        for place, (done, stages, rank_1) in seen.items():
            if place not in self.bars:
                self.bars[place] = tqdm(total=stages, desc=self.jobs[place].title, unit="stage", leave=False)
            bar = self.bars[place]
            if rank_1 is not None:  # a Split of one's own may have nothing to rank
                bar.set_postfix_str(f"rank-1 {rank_1:.1%}", refresh=False)
            bar.update(done - bar.n)

    def end(self, place: int) -> None:
        if place in self.bars:
            self.bars[place].close()
        self.total.update()
