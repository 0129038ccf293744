"""Which device a run computes on, and in what precision."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

PRECISIONS = ("float32", "tf32", "bf16")
CUDNN_TRIES = 3  # algorithms a shape; with PyTorch's ten mobilenet_v2 in TF32 was not seen to get warm on an H100
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_keeping = False  # within a block of keeping_freed_memory


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or CUDA where there is one; under torchrun, of several the one of this process.

    Raises:
        ValueError: an unknown device, or CUDA where there is none.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown; give cpu, cuda or cuda:N")
    if chosen == torch.device("cuda"):
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda" and chosen.index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: {torch.cuda.device_count()} CUDA devices here; give cpu or one of them")
    return chosen


def choose_precision(precision: str | None, device: torch.device) -> str:
    """The precision asked for, or the device's own: float32 on a CPU, TF32 on CUDA, as PyTorch's convolutions have it.

    "float32": products of 24 significant bits. "tf32": of 11, by CUDA's matrix units. "bf16": of 8 in the backbone, by
    automatic mixed precision, the rest as without it. Sums, weights and lookup table are float32 in each.

    Raises:
        ValueError: an unknown precision, or TF32 on a CPU.
    """
    precision = precision or ("tf32" if device.type == "cuda" else "float32")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; give {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type == "cpu":
        raise ValueError("precision 'tf32' is CUDA's; give float32 or bf16 on a CPU")
    return precision


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Networks that run in the block compute in ``precision``; cuDNN tries some algorithms for each new shape."""
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
    """In the block float32 matrices are multiplied in "ieee", "tf32" or "bf16", whatever the process allows."""
    backend = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Mixed precision for a forward pass, if that is what ``precision`` says.

    Nothing is cached: a weight is used once, and in a captured graph a cached copy would be an old one.
    """
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False) if precision == "bf16" else nullcontext()


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """In the block glibc keeps what is freed for whoever asks next; after it, what is free goes back to the system.

    Left to itself it asks the system for the fresh pages of every large tensor, each of which the first write has to
    wait for: a sixth of a training step on a CPU. Where there is no glibc nothing changes; nor in a block within one.
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
        limit(MMAP_THRESHOLD, 2**25)  # the largest that glibc itself comes to in the course of a process
        limit(TRIM_THRESHOLD, 2**26)
        trim(0)
