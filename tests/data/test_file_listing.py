"""What belongs to a system is not the user's data."""

from pathlib import Path

import pytest

from hubel.data.file_listing import files_below, is_shown


@pytest.mark.parametrize(
    "name",
    [
        "._a.jpg",
        ".DS_Store",
        ".ipynb_checkpoints",
        ".@__thumb",
        "__MACOSX",
        "Thumbs.db",
        "desktop.ini",
        "@eaDir",
        "$RECYCLE.BIN",
        "$Recycle.Bin",
        "lost+found",
        "System Volume Information",
        "@Recycle",
    ],
)
def test_names_that_systems_add(name: str) -> None:
    assert not is_shown(name)


@pytest.mark.parametrize("name", ["a.jpg", "recycle", "Temporary", "@work", "#1", "$5", "_a.jpg", "thumbs.png"])
def test_names_that_people_give(name: str) -> None:
    assert is_shown(name)


def test_walk_passes_over_them_at_every_depth(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/2.jpg", "a/b/._3.jpg", "a/b/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)] == ["a/1.jpg", "a/b/3.jpg"]
