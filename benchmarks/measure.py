"""Measure the time of calls that take turns, and the memory of each call in a process of its own."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch
import typer

from benchmarks.pieces import Call, is_exact, prepare
from benchmarks.rows import Row
from reprolib.devices import choose_device

SHORTEST = 0.02  # seconds; a faster call is repeated for this time, and its mean counts as one measurement
LONG_ROW = 5  # repetitions; rows with fewer take so long that there is no warm-up round


def open_device(name: str | None) -> torch.device:
    """Return the device of a command's option, and make it current: torch.cuda.synchronize waits for that one."""
    try:
        device = choose_device(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def measure(row: Row, device: str) -> dict:
    """Measure a row by contender: median seconds, all times, and peak memory in bytes beyond the inputs."""
    calls = prepare(row, device)
    times = in_turns(calls, row.repetitions, device)
    del calls
    return {
        **asdict(row),
        **summary(times),
        "peak_bytes": {name: peak_bytes(row, device, name) for name in times},
        "exact": is_exact(row, device) if row.exact else None,
    }


def summary(times: dict[str, list[float]]) -> dict:
    """Return the median of each contender's times, and all times."""
    return {
        "seconds": {name: median(taken) for name, taken in times.items()},
        "times": {name: [round(t, 7) for t in taken] for name, taken in times.items()},
    }


def in_turns(calls: dict[str, Call], repetitions: int, device: str) -> dict[str, list[float]]:
    """Measure the seconds of each call, ``repetitions`` times; calls take turns, so that a disturbance affects all."""
    first = {name: _seconds(call, 1, device) for name, call in calls.items()} if repetitions >= LONG_ROW else {}
    counts = {name: max(1, int(SHORTEST / first.get(name, SHORTEST))) for name in calls}
    times = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            times[name].append(_seconds(call, counts[name], device))
    return times


def _seconds(call: Call, count: int, device: str) -> float:
    """Measure the mean seconds of ``count`` calls, including their work on the device."""
    _finish(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    _finish(device)
    return (time.perf_counter() - start) / count


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(row: Row, device: str, name: str) -> int | None:
    """Measure the peak memory of a call beyond its inputs: in a new process, or from CUDA's allocator.

    None if neither is available (a system without ``/proc``).
    """
    if device == "cuda":
        call = prepare(row, device)[name]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    # The fork server has everything loaded but has computed nothing, so new processes start fast and clean.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.measure"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_bytes_here, row, device, name).result()


def _peak_bytes_here(row: Row, device: str, name: str) -> int:
    prepare(row.tiny(), device)[name]()
    call = prepare(row, device)[name]
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM, to the current memory
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)  # the system updates its counts in batches


def _status(field: str) -> int:
    """Read a line of ``/proc/self/status``, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[field].split()[0])
