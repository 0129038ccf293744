"""Memory that training frees: used again within, given back after."""

import ctypes
import json
import subprocess
import sys

import pytest
import torch

from reprolib.devices import keeping_freed_memory

MEASURED = """
import json, resource
from pathlib import Path
import torch
from reprolib.devices import keeping_freed_memory

def page_faults_of_ten_tensors():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(64 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

faults, resident = [page_faults_of_ten_tensors()], [resident_megabytes()]
with keeping_freed_memory():
    faults.append(page_faults_of_ten_tensors())
    resident.append(resident_megabytes())
resident.append(resident_megabytes())
print(json.dumps([faults, resident]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc here")
def test_freed_memory_is_used_again_and_given_back_at_the_end():
    alone = [sys.executable, "-c", MEASURED]  # in a process whose heap holds nothing else
    faults, resident = json.loads(subprocess.check_output(alone, text=True))
    assert faults[1] < faults[0] / 4  # the pages of one tensor of ten, or two
    assert resident[1] > resident[0] + 32
    assert resident[2] < resident[0] + 16


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with keeping_freed_memory():
        assert torch.ones(3).sum() == 3
