"""What the tests share: where real data is, and quiet threads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch is imported: tests run side by side, and two threads on small tensors wait for each other more than
# they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from drawn_shapes import write_shapes

# A shell's background jobs start with interrupts ignored, and hand that on: tests interrupt the commands they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # which nohup has commands ignore; Windows has none
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that ``HUBEL_DATA`` names; tests that need it skip without it."""
    folder = os.environ.get("HUBEL_DATA")
    if not folder:
        pytest.skip("HUBEL_DATA is not set: this test needs the real data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"HUBEL_DATA names {folder}, which is not a folder")
    return path


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unsplit data set of 3 classes of 60 images of 32 × 32 pixels that a small network learns in seconds."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", {"cross": 60, "disc": 60, "frame": 60})


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they need, whatever the terminal of whoever runs the tests, or a library before, says."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the cache of whoever runs them."""
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
