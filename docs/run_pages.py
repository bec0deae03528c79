"""Run the code on the documentation's pages.

The tests run every page and compare its output with the text blocks of the page. ``python docs/run_pages.py`` runs the
pages to draw the images in ``docs/images`` again.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
_MARK = "\x1eblock {}\x1e"
_IMAGE = re.compile(r"!\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass
class Block:
    """A fenced block: its language, its lines, and the number of its first line on the page (from 1)."""

    language: str
    lines: list[str]
    first_line: int

    @property
    def text(self) -> str:
        """The lines between the fences."""
        return "\n".join(self.lines)


def all_pages() -> list[Path]:
    """README.md and every page below docs/."""
    return [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks: list[Block] = []
    open_block: Block | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```") and open_block is None:
            open_block = Block(line[3:].strip(), [], number + 1)
        elif line.startswith("```") and open_block is not None:
            blocks.append(open_block)
            open_block = None
        elif open_block is not None:
            open_block.lines.append(line)
    if open_block is not None:
        raise ValueError(f"{page}: the block that starts in line {open_block.first_line} is not closed")
    return blocks


def expected_outputs(page: Path) -> dict[int, str]:
    """First line of a python block → the text block right after it, its expected output."""
    blocks = blocks_of(page)
    return {
        block.first_line: after.text
        for block, after in itertools.pairwise(blocks)
        if block.language == "python"
        and after.language == "text"
        and after.first_line <= block.first_line + len(block.lines) + 3
    }


def script_of(page: Path) -> str:
    """The python blocks as one program with the page's line numbers; it prints a mark after each block."""
    blocks = [block for block in blocks_of(page) if block.language == "python"]
    if not blocks:
        return ""
    lines = [""] * (blocks[-1].first_line + len(blocks[-1].lines))
    for block in blocks:
        start = block.first_line - 1
        lines[start : start + len(block.lines)] = block.lines
        lines[start + len(block.lines)] = f"print({_MARK.format(block.first_line)!r})"
    return "\n".join(lines)


def run(page: Path, folder: Path) -> dict[int, str]:
    """Run a page's python blocks in ``folder``, into which the two sample photographs are copied.

    Returns:
        First line of each python block → its output.
    """
    import matplotlib

    matplotlib.use("Agg")
    import torch
    from matplotlib import pyplot
    from sklearn import datasets

    photographs = Path(datasets.__file__).parent / "images"
    for name in ("china.jpg", "flower.jpg"):
        shutil.copyfile(photographs / name, folder / name)
    script = folder / f"{page.stem}.py"
    script.write_text(script_of(page), encoding="utf-8")
    stdout = io.StringIO()
    before, threads = Path.cwd(), torch.get_num_threads()
    torch.set_num_threads(1)  # the pages' networks are too small to share
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(stdout), pyplot.rc_context():
            runpy.run_path(str(script), run_name="page")
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
        pyplot.close("all")
    pieces = re.split(_MARK.format(r"(\d+)") + r"\n", stdout.getvalue())
    return {int(number): text.rstrip("\n") for text, number in zip(pieces[::2], pieces[1::2], strict=False)}


def images_of(page: Path) -> list[Path]:
    """Files in docs/images that a page shows."""
    targets = [match["target"] for match in _IMAGE.finditer(page.read_text(encoding="utf-8"))]
    paths = [(page.parent / target).resolve() for target in targets if "://" not in target]
    return [path for path in paths if path.parent == IMAGES]


def draw_images() -> None:
    """Run every page and save the images that it shows, in 256 colours; then the demo's."""
    from PIL import Image

    for page in all_pages():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run(page, folder)
            for target in images_of(page):
                drawn = folder / target.name
                if drawn.exists() and target.suffix == ".png":
                    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
                    image.save(target, optimize=True)
                    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([sys.executable, "-m", "hubel", "demo", "--out", name], check=True)
        shutil.copyfile(Path(name, "china.jpg"), IMAGES / "demo.jpg")


if __name__ == "__main__":
    draw_images()
