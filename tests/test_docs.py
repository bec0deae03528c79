"""The documentation's code runs, prints what it says, and draws the pictures that it shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from run_pages import (  # noqa: E402
    all_pages,
    blocks_of,
    pictures_of,
    promised_outputs,
    run,
    script_of,
)

# `hubel demo` and `hubel models --plot` make them.
NOT_DRAWN_BY_PAGES = {"demo.jpg", "choice.png"}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in all_pages() if script_of(page)], ids=_name)
def test_page_prints_and_draws_what_it_shows(page: Path, tmp_path: Path) -> None:
    printed = run(page, tmp_path)
    promised = promised_outputs(page)
    for first_line, text in printed.items():
        assert text == promised.get(first_line, ""), f"{_name(page)}, block in line {first_line}"
    for picture in pictures_of(page):
        if picture.name not in NOT_DRAWN_BY_PAGES:
            assert (tmp_path / picture.name).exists(), f"{_name(page)} shows {picture.name} but draws it not"


@pytest.mark.parametrize("page", all_pages(), ids=_name)
def test_page_shows_pictures_that_exist_and_are_small(page: Path) -> None:
    for picture in pictures_of(page):
        assert picture.is_file(), f"{_name(page)} shows {picture.name}: run `make docs-images`"
        assert picture.stat().st_size < 150_000, f"{picture.name} is larger than 150 kB"


@pytest.mark.parametrize("page", all_pages(), ids=_name)
def test_every_result_follows_the_code_that_prints_it(page: Path) -> None:
    promised = len(promised_outputs(page))
    results = [block for block in blocks_of(page) if block.language == "text"]
    assert len(results) == promised, f"{_name(page)} has a text block that no python block prints"


def test_a_wrong_promise_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nprint(6 * 7)\n```\n\n```text\n43\n```\n\n```python\nx = 1\n```\n")
    printed = run(page, tmp_path)
    assert printed == {4: "42", 12: ""}
    assert promised_outputs(page) == {4: "43"}
