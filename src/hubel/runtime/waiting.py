"""How the threads of a network wait for each other."""

from __future__ import annotations

import os
import sys


def wait_passively() -> bool:
    """Let OpenMP's threads sleep while they wait, instead of spinning on the cores that decode images.

    Training decodes in processes of its own beside the network. With as many threads as cores, spinning threads and
    decoding processes drive each other off: EfficientNet-Lite0 at 192 px trained 31 images/s on two cores, with
    threads that sleep 43 (``docs/results.md``).

    Has an effect only before torch is imported, so ``hubel train`` calls it first of all. Set the environment
    variable ``OMP_WAIT_POLICY`` yourself to decide otherwise.

    Returns:
        Whether it was set here.
    """
    if "OMP_WAIT_POLICY" in os.environ or "torch" in sys.modules:
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True
