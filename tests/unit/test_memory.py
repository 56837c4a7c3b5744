"""Freed memory is kept inside the block, and returned at the end: the page faults and the size of the process say so."""

import ctypes
import json
from pathlib import Path

import pytest

from tests.support.forked import run_python

MEASURE = """
import json, resource
import torch
from reviewgen.training.memory import reused_memory

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

torch.set_num_threads(1)
plain = [faults(200) for _ in range(3)]
start = resident()
with reused_memory():
    reused = [faults(200) for _ in range(3)]
    kept = resident() - start
after = resident() - start
print(json.dumps({"plain": plain, "reused": reused, "kept": kept, "after": after}))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc can keep memory")
def test_freed_memory_is_kept_and_then_returned(tmp_path: Path) -> None:
    done = run_python(["-c", MEASURE], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert max(figures["reused"][1:]) < min(figures["plain"]) / 5 or max(figures["reused"][1:]) < 50, figures
    assert figures["kept"] >= 150 and figures["after"] <= 50, figures
