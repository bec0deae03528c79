"""The documentation's code runs, its output equals the text blocks, and it draws the images that the pages show."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from run_notebook import all_notebooks, read  # noqa: E402
from run_notebook import run as run_notebook  # noqa: E402
from run_pages import (  # noqa: E402
    all_pages,
    blocks_of,
    expected_outputs,
    images_of,
    run,
    script_of,
)

# `hubel demo`, `hubel models --plot`, a training and docs/draw_garments.py write them.
NOT_DRAWN_BY_PAGES = {
    "choice.png",
    "demo.jpg",
    "detector.jpg",
    "report.png",
    "tracker.jpg",
    "two-looks-proposals.jpg",
    "two-looks-squares.png",
}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in all_pages() if script_of(page)], ids=_name)
def test_page_prints_and_draws_what_it_shows(page: Path, tmp_path: Path) -> None:
    printed = run(page, tmp_path)
    expected = expected_outputs(page)
    for first_line, text in printed.items():
        assert text == expected.get(first_line, ""), f"{_name(page)}, block in line {first_line}"
    for image in images_of(page):
        if image.name not in NOT_DRAWN_BY_PAGES:
            assert (tmp_path / image.name).exists(), f"{_name(page)} shows {image.name} but does not draw it"


@pytest.mark.parametrize("page", all_pages(), ids=_name)
def test_page_shows_images_that_exist_and_are_small(page: Path) -> None:
    for image in images_of(page):
        assert image.is_file(), f"{_name(page)} shows {image.name}: run `make docs-images`"
        assert image.stat().st_size < 150_000, f"{image.name} is larger than 150 kB"


@pytest.mark.parametrize("page", all_pages(), ids=_name)
def test_every_result_follows_the_code_that_prints_it(page: Path) -> None:
    expected = len(expected_outputs(page))
    results = [block for block in blocks_of(page) if block.language == "text"]
    assert len(results) == expected, f"{_name(page)} has a text block without a python block before it"


def test_a_wrong_output_is_detected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nprint(6 * 7)\n```\n\n```text\n43\n```\n\n```python\nx = 1\n```\n")
    printed = run(page, tmp_path)
    assert printed == {4: "42", 12: ""}
    assert expected_outputs(page) == {4: "43"}


@pytest.mark.parametrize("notebook", all_notebooks(), ids=_name)
def test_notebook_shows_what_it_computes(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    document = read(notebook)
    shown = [cell["outputs"] for cell in document["cells"] if cell["cell_type"] == "code"]
    for number, (outputs, expected) in enumerate(zip(run_notebook(document), shown, strict=True), 1):
        assert [_text(output) for output in outputs] == [_text(output) for output in expected], f"cell {number}"
        for output, saved in zip(outputs, expected, strict=True):
            if "image/png" in output.get("data", {}):
                difference = np.abs(_pixels(output) - _pixels(saved))
                assert difference.mean() < 2, f"cell {number} draws another image"
    assert str(Path.home()) not in notebook.read_text("utf-8")


def _text(output: dict[str, Any]) -> tuple[str, str, str]:
    data = output.get("data", {})
    return output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")


def _pixels(output: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))), np.float32)
