"""Devices and precisions of a run."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

PRECISIONS = ("float32", "tf32", "bf16")
CUDNN_TRIES = 3  # algorithms per shape; with PyTorch's ten, mobilenet_v2 in TF32 was not seen to warm up on an H100
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # parameters of glibc's mallopt
_keeping = False  # True inside a block of keeping_freed_memory


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device, or CUDA if available; under torchrun "cuda" is the device of this process.

    Raises:
        ValueError: an unknown device, or a CUDA device that does not exist.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown; use cpu, cuda or cuda:N")
    if chosen == torch.device("cuda"):
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda" and chosen.index >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu or one of them"
        )
    return chosen


def choose_precision(precision: str | None, device: torch.device) -> str:
    """Return the requested precision, or the device's: float32 on a CPU, TF32 on CUDA (as in PyTorch's convolutions).

    "float32": products have 24 significant bits. "tf32": 11 bits, on CUDA's matrix units. "bf16": 8 bits in the
    backbone, by automatic mixed precision; the rest is unchanged. Sums, weights and the lookup table are always
    float32.

    Raises:
        ValueError: an unknown precision, or TF32 on a CPU.
    """
    precision = precision or ("tf32" if device.type == "cuda" else "float32")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; use {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type == "cpu":
        raise ValueError("precision 'tf32' needs CUDA; use float32 or bf16 on a CPU")
    return precision


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Run networks within the block in ``precision``; cuDNN tries some algorithms for each new shape."""
    if device.type != "cuda":
        yield
        return
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.benchmark_limit, cudnn.conv.fp32_precision, products.fp32_precision
    wanted = "ieee" if precision == "float32" else "tf32"
    cudnn.benchmark, cudnn.benchmark_limit = True, CUDNN_TRIES
    cudnn.conv.fp32_precision, products.fp32_precision = wanted, wanted
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.benchmark_limit, cudnn.conv.fp32_precision, products.fp32_precision = before


@contextmanager
def multiplying_in(precision: str, device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices within the block in "ieee", "tf32" or "bf16", regardless of the process's settings."""
    backend = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return a context for a forward pass with mixed precision if ``precision`` is "bf16", else an empty context.

    Casts are not cached: each weight is used only once, and in a captured graph a cached copy would be outdated.
    """
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False) if precision == "bf16" else nullcontext()


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Let glibc keep freed memory for reuse within the block; afterwards it is returned to the system.

    By default glibc asks the system for new pages for every large tensor, and the first write to each page has to wait:
    a sixth of a training step on a CPU. Without glibc, or inside another such block, nothing changes.
    """
    global _keeping
    if _keeping:
        yield
        return
    try:
        libc = ctypes.CDLL(None)
        limit, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    _keeping = True
    limit(TRIM_THRESHOLD, 2**31 - 1)
    limit(MMAP_THRESHOLD, 2**30)
    try:
        yield
    finally:
        _keeping = False
        limit(MMAP_THRESHOLD, 2**25)  # the largest value that glibc itself reaches during a process
        limit(TRIM_THRESHOLD, 2**26)
        trim(0)
