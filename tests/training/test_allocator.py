"""The allocator's settings, by the memory that stays with a process, each in one of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Three blocks of 40 MB are filled and freed, as feature maps are by a training step, three times over.
STEPS = """
import resource, sys
from pathlib import Path
from hubel.system import tune_allocator
keep = {"some": 64 << 20, "all": None}
tuned = sys.argv[1] in keep and tune_allocator(keep=keep[sys.argv[1]])
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1000
before = resident()
for _ in range(3):
    maps = [bytearray(b"x") * 40_000_000 for _ in range(3)]
    while maps:
        maps.pop()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(tuned, resident() - before, peak - before)
"""


def steps(how: str, **environment: str) -> tuple[bool, int, int]:
    """Whether it was tuned, kilobytes that stay after the steps, and that there were at their peak."""
    command, own = [sys.executable, "-c", STEPS, how], {**os.environ, **environment}
    tuned, kept, peak = subprocess.run(command, check=True, capture_output=True, text=True, env=own).stdout.split()
    return tuned == "True", int(kept), int(peak)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    untouched, off = steps("glibc"), steps("all", HUBEL_MALLOC="0")
    some, everything = steps("some"), steps("all")
    assert not untouched[0] and not off[0] and some[0] and everything[0]
    assert untouched[1] < 20_000 and off[1] < 20_000
    assert 30_000 < some[1] < 68_000  # at most 64 MiB
    assert everything[1] > 115_000
    assert everything[2] < 1.1 * untouched[2]  # no more than a step needs
