"""How the threads of a network wait for each other."""

from __future__ import annotations

import os
import sys

# Turns of the waiting loop of GNU's OpenMP, which torch's Linux builds carry, before a thread sleeps: some tenths of a
# millisecond, longer than threads that share a convolution miss each other by, and shorter than decoding a photograph.
_SPINS = "10000"


def wait_passively() -> bool:
    """Let OpenMP's threads soon sleep while they wait, instead of spinning on the cores that decode images.

    Training decodes in processes of its own beside the network. With as many threads as cores, spinning threads and
    decoding processes drive each other off; threads that sleep at once are late for the next convolution: of
    ResNet-50's steps in bfloat16 that costs a fifth (``docs/results.md``).

    Has an effect only before torch is imported, so ``hubel train`` calls it first of all. Set the environment
    variable ``OMP_WAIT_POLICY`` yourself to decide otherwise.

    Returns:
        Whether it was set here.
    """
    if "OMP_WAIT_POLICY" in os.environ or "torch" in sys.modules:
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    return True
