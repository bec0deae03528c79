"""Settings of the process: memory allocator, OpenMP threads, number of CPUs."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

# mallopt(3), malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Blocks up to this size come from the heap; glibc before 2.35 accepts no more than 32 MiB.
_LARGEST_HEAP_BLOCKS = (1 << 30, 32 << 20)
_KEPT_WHEN_FREE = 512 << 20
_NEVER = -1  # give anything back


def tune_allocator(keep: int | None = _KEPT_WHEN_FREE) -> bool:
    """Let glibc keep freed memory for the next feature map instead of giving it back to the kernel.

    By default a large block is mapped afresh from the kernel and unmapped when freed, so every feature map of
    every batch is paid for in page faults. Measured on an AVX2 CPU, one thread, batches of 16 at 224 px,
    processor time: EfficientNet-Lite0 627 → 357 ms, ResNet-50 2360 → 1853 ms.

    The price is resident memory: ``keep`` bytes of freed memory stay with the process. Measured in the same runs:
    peak 1.07 → 1.12 GB, and after the last batch 1.15 GB stay where 0.91 GB did (0.8 GB of it is torch itself).

    Training keeps all (``None``): the feature maps of a step are freed one after the other in the backward pass, and
    needed again by the next step. With 512 MiB a quarter of the page faults of ``efficientnet_lite0`` with batches of
    32 at 224 px remained. What stays is at most what a step has needed.

    Call it early: it changes nothing for blocks that are allocated already. The environment variable
    ``HUBEL_MALLOC=0`` switches it off. Returns whether the allocator was tuned: not where it is not glibc's.
    """
    if os.environ.get("HUBEL_MALLOC") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    if not any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_HEAP_BLOCKS):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _NEVER if keep is None else keep))


# Turns of the waiting loop of GNU's OpenMP, which torch's Linux builds carry, before a thread sleeps: some tenths of a
# millisecond, longer than threads that share a convolution miss each other by, and shorter than decoding a photograph.
_SPINS = "10000"


def set_passive_omp_wait() -> bool:
    """Let OpenMP's threads soon sleep while they wait, instead of spinning on the cores that decode images.

    Training decodes in processes of its own beside the network. With as many threads as cores, spinning threads and
    decoding processes drive each other off; threads that sleep at once are late for the next convolution: of
    ResNet-50's steps in bfloat16 that costs a fifth (``docs/results.md``).

    Has an effect only before torch is imported, so ``hubel train`` calls it first of all. An environment variable
    ``OMP_WAIT_POLICY`` decides otherwise. Returns whether it was set here.
    """
    if "OMP_WAIT_POLICY" in os.environ or "torch" in sys.modules:
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    return True


def processor_name() -> str:
    """The processor's name; on Linux from the kernel, since platform.processor() is empty there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def cpu_count() -> int:
    """Number of CPUs that this process may use; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
