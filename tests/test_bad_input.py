"""The command ``hubel predict`` on a folder of everything that people have, good and bad, in one run."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# The network, torch and the images together; a 60,000 x 60,000 image alone would take 10.8 GB.
_MOST_MEMORY = 3 << 30


def _photograph() -> Image.Image:
    """An upright landscape whose left third is red, the rest blue with noise: 300 x 200."""
    noise = np.random.default_rng(0).integers(0, 60, (200, 300, 3), dtype=np.uint8)
    noise[:, :100, 0] += 180
    noise[:, 100:, 2] += 180
    return Image.fromarray(noise)


def _write_good(folder: Path) -> dict[str, tuple[int, int]]:
    """Images that must be answered: name → upright size."""
    photograph = _photograph()
    with_alpha = photograph.convert("RGBA")
    with_alpha.putalpha(128)
    photograph.convert("CMYK").save(folder / "cmyk.jpg")
    photograph.convert("L").save(folder / "grey.jpg")
    grey = np.asarray(photograph.convert("L")).astype(np.uint16)
    Image.fromarray(grey * 257).save(folder / "sixteen bits.png")
    photograph.quantize(32).save(folder / "palette.png", transparency=bytes(range(0, 256, 8)))
    with_alpha.convert("LA").save(folder / "grey alpha.png")
    photograph.convert("1").save(folder / "one bit.tif")
    photograph.save(folder / "photo.webp")
    photograph.save(folder / "photo.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph.save(folder / "rotated.jpg", exif=exif)
    photograph.save(folder / "animated.gif", save_all=True, append_images=[photograph.rotate(90)])
    Image.new("RGB", (1, 1), "green").save(folder / "dot.png")
    photograph.save(folder / "names with spaces.jpg")
    photograph.save(folder / "émoji 🌷.jpg")
    names = ("cmyk.jpg", "grey.jpg", "sixteen bits.png", "palette.png", "grey alpha.png", "one bit.tif", "photo.webp")
    names += ("photo.bmp", "animated.gif", "names with spaces.jpg", "émoji 🌷.jpg")
    return {**dict.fromkeys(names, (300, 200)), "rotated.jpg": (200, 300), "dot.png": (1, 1)}


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _write_bad(folder: Path) -> dict[str, str]:
    """Images that must be named: name → what the reason must say (a regular expression)."""
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("this is not an image")
    _photograph().save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", zlib.compress(bytes(1000))) + _png_chunk(b"IEND", b"")
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    reasons = {
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "truncated.jpg": "truncated",
        "huge.png": "pixels",
        "link.jpg": "broken link",
        "loop.jpg": "broken link",
    }
    if os.name != "nt" and os.geteuid() != 0:
        _photograph().save(folder / "secret.jpg")
        (folder / "secret.jpg").chmod(0)
        reasons["secret.jpg"] = "permission"
    return reasons


@dataclass(frozen=True)
class _Run:
    good: dict[str, tuple[int, int]]
    bad: dict[str, str]
    process: subprocess.CompletedProcess[str]
    rows: dict[str, dict]
    peak_bytes: int
    saved: list[str]


# As ``python -m hubel``, but that the kernel's record of the process is kept: what a parent learns of its children
# is the largest of all, and counts what it had itself when it started them.
_MAIN = """
import atexit, sys
from pathlib import Path
kept, status = Path(sys.argv.pop(1)), Path("/proc/self/status")
atexit.register(lambda: status.exists() and kept.write_bytes(status.read_bytes()))
from hubel.cli.main import main
main()
"""


def _peak_bytes(status: Path) -> int:
    if not status.exists():  # not Linux
        resource = pytest.importorskip("resource", reason="Windows keeps no peak of children")
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> _Run:
    folder = tmp_path_factory.mktemp("pictures")
    good, bad = _write_good(folder), _write_bad(folder)
    out = tmp_path_factory.mktemp("out")
    status = tmp_path_factory.mktemp("memory") / "status"
    words = [str(status), "predict", str(folder), "--json", "--top", "3", "--save", str(out)]
    command = [sys.executable, "-c", _MAIN, *words]
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    peak = _peak_bytes(status)
    rows = {Path(row["source"]).name: row for row in map(json.loads, process.stdout.splitlines())}
    saved = sorted(path.name for path in out.iterdir() if path.name != ".hubel")  # its mark
    return _Run(good, bad, process, rows, peak, saved)


def test_every_good_image_is_predicted(run: _Run) -> None:
    for name, (width, height) in run.good.items():
        row = run.rows[name]
        assert (row["width"], row["height"]) == (width, height), name
        assert row["task"] == "classify" and row["model"] == "efficientnet_lite0"
        scores = [entry["score"] for entry in row["classes"]]
        assert len(scores) == 3
        assert 1 >= scores[0] >= scores[1] >= scores[2] > 0


def test_every_bad_image_is_named_with_its_reason(run: _Run) -> None:
    for name, reason in run.bad.items():
        row = run.rows[name]
        assert set(row) == {"source", "error"}
        assert re.search(reason, row["error"]), row["error"]
        assert name in row["error"]
        assert any(name in line and re.search(reason, line) for line in run.process.stderr.splitlines())


def test_nothing_else_is_served_and_the_exit_status_tells(run: _Run) -> None:
    assert set(run.rows) == set(run.good) | set(run.bad)
    assert run.process.returncode == 1
    assert "Traceback" not in run.process.stderr + run.process.stdout


def test_every_good_image_is_saved_with_its_result(run: _Run) -> None:
    stems = [Path(name).stem for name in run.good]  # photo.webp and photo.bmp share theirs
    assert run.saved == sorted([*(f"{stem}.jpg" for stem in set(stems)), "photo-2.jpg"])


def test_memory_is_bounded(run: _Run) -> None:
    assert run.peak_bytes < _MOST_MEMORY
