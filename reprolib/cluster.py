"""Runs on many machines with Ray: each goes to a worker with the resources it needs, to another if that is lost."""

import os
import socket
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

RETRIES = 3  # for a run whose worker was lost
OBJECT_STORE = 100 * 2**20  # bytes, for a local cluster; small, because runs exchange files, not objects


class ClusterError(ValueError):
    """A cluster cannot do the runs; the message gives the reason and the remedy."""


def train(jobs: Sequence[Job], *, address: str | None = None, results: Path = paths.RESULTS) -> list[RunRecord]:
    """Return a record for each job, in their order, each trained by a worker of its own: on a GPU, or on one CPU core.

    State and records are kept in the folder ``results``, which all machines must share: a run whose worker is lost
    resumes after the last saved epoch. Without an address a cluster on this machine alone is started, and stopped at
    the end. If this process is already connected to a cluster, that cluster is used.

    Raises:
        ClusterError: Ray, the cluster or the device is missing; or runs failed, after all others have ended.
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
                if record is None:  # another worker is at this run, or at its first stage: back to the end of the queue
                    pending[send(place, wait=True)] = place
                else:
                    records[place] = record
                    view.end(place)
    if failures:
        lines = "\n".join(f"  {jobs[place].title}: {reason}" for place, reason in failures.items())
        raise ClusterError(
            f"{len(failures)} of {len(jobs)} runs failed; run the same command again (without --fresh) to resume them:"
            f"\n{lines}"
        )
    return [records[place] for place in range(len(jobs))]


def _start_board(ray):
    """Start the board on this machine, because it must outlive the other machines."""
    here = ray.get_runtime_context().get_node_id()
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(_Board).options(num_cpus=0, scheduling_strategy=strategy).remote()


def _sender(ray, jobs: Sequence[Job], board, home: "_Home", results: Path) -> Callable:
    """Return ``send(place)``, which puts a job in Ray's queue and returns the reference to its future record."""
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
    """Yield Ray, connected to a cluster."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ClusterError(
            "Ray is not installed; run make setup, or pip install --editable '.[cluster]' in the checkout"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:  # start one of our own: with None Ray would look for an existing cluster
        own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": OBJECT_STORE}
        options |= {"address": "local", **own}
    else:
        _require_listening(address)
        options["address"] = address
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises many kinds, some of no more specific class
        where = f"no cluster at {address}" if address else "no cluster could be started on this machine"
        raise ClusterError(f"{where} ({error}); see docs/cluster.md") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Raise ClusterError if nothing answers at HOST:PORT; Ray itself would keep trying for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no cluster at {address} ({error}); see docs/cluster.md") from error


def _resources(job: Job, gpus: float) -> dict[str, int]:
    """Return the resources that a job's worker needs, on a cluster with this number of GPUs."""
    device = str(job.settings.get("device") or "")
    if device.removeprefix("cuda:").isdecimal():
        raise ClusterError(f"device {device!r}: a worker sees only its own GPU; use cuda")
    if device.startswith("cuda") and not gpus:
        raise ClusterError(
            f"device {device!r}: the cluster has no GPU; use cpu, or start workers on machines with a GPU"
        )
    return {"num_gpus": 1} if gpus and device != "cpu" else {"num_cpus": 1}


def _precision(job: Job) -> str:
    """Return the requested precision, else the default of the requested device, else that of this machine.

    It must be fixed here, because it is part of the record's name.
    """
    device = job.settings.get("device") or choose_device(None)
    kind = torch.device("cuda" if str(device).startswith("cuda") else "cpu")
    return job.settings.get("precision") or choose_precision(None, kind)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    if isinstance(cause, ValueError):  # an error of reprolib
        return str(cause)
    return str(error) if cause else f"its worker was lost {RETRIES + 1} times ({error})"


@dataclass(frozen=True)
class _Home:
    """What a worker must have in common with the process that sends the runs."""

    token: Path  # a file whose lock the sending process holds
    made_with: dict[str, str]

    def check(self) -> None:
        """Raise ClusterError if a worker's results would be lost, or made with other code or versions."""
        place = f"worker on {os.uname().nodename}"
        other = {"reprolib": SOURCE, **versions()}
        changes = [
            f"{k} is {v} on the driver, {other.get(k)} here" for k, v in self.made_with.items() if v != other.get(k)
        ]
        if changes:
            raise ClusterError(f"{place}: {'; '.join(changes)}; start Ray from the same checkout and requirements.lock")
        if not self.token.with_name(f"{self.token.name}.lock").exists():
            raise ClusterError(
                f"{place}: it does not see {self.token.parent}; put the checkout into a folder that all machines share"
            )
        try:
            with locked(self.token, wait=False):
                raise ClusterError(
                    f"{place}: file locks in {self.token.parent} do not work there; mount it with locks (flock)"
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
    """Run a job on a worker; return its record, or None if another worker is at it and ``wait`` is False."""
    home.check()

    def show(record: RunRecord, stages: int) -> None:
        board.show.remote(place, len(record.stages), stages, record.stages[-1]["metrics"].get("rank-1"))

    try:
        return job.run(wait=wait, on_stage=show)
    except Busy:
        return None


class _Board:
    """The place where workers report their progress: an actor on the machine of the process that sends the runs."""

    def __init__(self):
        self.seen = {}

    def show(self, place: int, *progress: float | None) -> None:
        self.seen[place] = progress

    def read(self) -> dict[int, tuple]:
        """Return by the place of the job: stages done, number of stages, and rank-1 if anything is ranked."""
        return self.seen


class _View:
    """A progress bar for all runs together, and one for each run in progress."""

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
            if rank_1 is not None:  # a custom Split may have nothing to rank
                bar.set_postfix_str(f"rank-1 {rank_1:.1%}", refresh=False)
            bar.update(done - bar.n)

    def end(self, place: int) -> None:
        if place in self.bars:
            self.bars[place].close()
        self.total.update()
