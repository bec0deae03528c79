"""What the tests share: where real data is, and quiet threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that ``HUBEL_DATA`` names; tests that need it skip without it."""
    folder = os.environ.get("HUBEL_DATA")
    if not folder:
        pytest.skip("HUBEL_DATA is not set: this test needs the real data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"HUBEL_DATA names {folder}, which is no folder")
    return path
