"""Files that are written whole, with the permissions of any other new file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hubel.fileio import StreamingFile, atomic_write, staged_directory, write_json, write_text


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_and_folders_keep_to_the_umask(umask: int, tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "text")
    write_json(tmp_path / "a.json", {})
    with StreamingFile(tmp_path / "a.csv", lambda kept: None) as lines:
        lines.write("1,2\n")
    with atomic_write(tmp_path / "a.safetensors") as path:  # safetensors writes beside, for its owner, and renames
        save_file({"weight": torch.ones(2)}, path)
    with staged_directory(tmp_path / "folder") as folder:
        (folder / "inside").touch()
        assert _mode(folder) == 0o777 & ~umask
        assert _mode(folder / "inside") == 0o666 & ~umask
    files = sorted(tmp_path.glob("a.*"))
    assert {path.name: oct(_mode(path)) for path in files} == {path.name: oct(0o666 & ~umask) for path in files}
    assert len(files) == 4
