"""Memory that training frees: used again within, given back after."""

import ctypes
import resource
from pathlib import Path

import pytest
import torch

from reprolib.devices import keeping_freed_memory

MEGABYTES = 64


def page_faults_of_ten_tensors() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(MEGABYTES << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc here")
def test_freed_memory_is_used_again_and_given_back_at_the_end():
    outside, resident = page_faults_of_ten_tensors(), resident_megabytes()
    with keeping_freed_memory():
        inside = page_faults_of_ten_tensors()
        assert resident_megabytes() > resident + MEGABYTES / 2
    assert inside < outside / 2  # one tensor's pages of ten, and some more where the heap is in pieces
    assert resident_megabytes() < resident + MEGABYTES / 4
    assert page_faults_of_ten_tensors() > inside


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with keeping_freed_memory():
        assert torch.ones(3).sum() == 3
