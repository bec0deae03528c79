"""Searches whose files take no time: an empty record is made once, and nothing waits for the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubel.tuning import tune
from hubel.tuning.record import Record
from hubel.tuning.study import quiet


@pytest.fixture(scope="session")
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record without trials: its tables take a second to make."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    with quiet():
        Record(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def made_at_once(empty_study: Path) -> Iterator[None]:
    """New searches begin with a copy of the empty record."""
    make = tune.make_search_folder

    def with_record(*arguments: Any) -> Path:
        folder = make(*arguments)
        for each in (folder, *folder.glob("without-*")):
            shutil.copyfile(empty_study, each / "study.db")
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "make_search_folder", with_record)
        patch.setattr("os.fsync", lambda file: None)
        yield
