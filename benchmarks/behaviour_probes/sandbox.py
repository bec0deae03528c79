"""A folder in which commands run, and what they say and write, without what may differ from run to run."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

WORDS = {
    "sentence",
    "remedy",
    "error",
    "fault",
    "notes",
    "warnings",
    "losses",
    "reason",
    "reasons",
    "reference",
    "changes",
}
"""Keys of JSON documents whose values are sentences."""

CLOCK = {"seconds", "images_per_second", "time_ms", "ms", "bytes_per_second"}
"""Keys of JSON documents, and columns of tables, that depend on the clock."""

VERSION = {"hubel"}
_LONGEST_TEXT = 6000


@dataclass(frozen=True)
class Sandbox:
    """A folder that commands run in.

    Attributes:
        folder: paths below it are shown relative to it.
    """

    folder: Path

    def inside(self, name: str) -> Sandbox:
        """A new folder in this one."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return dataclasses.replace(self, folder=folder)

    @property
    def data(self) -> Path:
        """The folder of real data sets."""
        if not os.environ.get("HUBEL_DATA"):
            raise RuntimeError("HUBEL_DATA is not set: this probe needs the real data sets")
        return Path(os.environ["HUBEL_DATA"]).resolve()

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command in this folder, with caches of its own and one thread where none are asked for."""
        more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in more if path),
            "HUBEL_CACHE": str(self.folder / ".cache"),
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
            "COLUMNS": "100",
        }
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, start_new_session=True, **pipes)

    def start_hubel(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``hubel ARGUMENTS``."""
        return self.start([sys.executable, "-m", "hubel", *arguments])

    def finished(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """Wait for a command; returns its stdout.

        Raises:
            RuntimeError: it ends with another status.
        """
        out, err = process.communicate()
        if process.returncode != status:
            command = " ".join(map(str, process.args))
            raise RuntimeError(f"{command[:500]} ended with {process.returncode}:\n{err[-3000:]}")
        return out

    def printed(self, process: subprocess.Popen[str], status: int = 0) -> Any:
        """The documents that a command with ``--json`` prints, without words and times."""
        rows = [self.clean(json.loads(line)) for line in self.finished(process, status).splitlines()]
        return rows[0] if len(rows) == 1 else rows

    def hubel(self, *arguments: str, status: int = 0) -> str:
        """Run ``hubel ARGUMENTS``, which has to end with that status; returns its stdout."""
        return self.finished(self.start_hubel(*arguments), status)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Run ``hubel ARGUMENTS --json``; see :meth:`printed`."""
        return self.printed(self.start_hubel(*arguments, "--json"), status)

    def python(self, function: str, *arguments: str) -> Any:
        """Run a function of :mod:`behaviour_probes.inside` in a fresh process; returns what it returns."""
        program = (
            f"import sys, json; sys.path.append({str(Path(__file__).parents[1])!r}); "
            f"from behaviour_probes import inside; print(json.dumps(inside.{function}(*sys.argv[1:])))"
        )
        out = self.finished(self.start([sys.executable, "-c", program, *arguments]))
        return self.clean(json.loads(out.splitlines()[-1]))

    def program(self, path: str, *arguments: str) -> list[str]:
        """Run a Python program; returns the lines that it prints."""
        return self.shown(self.finished(self.start([sys.executable, path, *arguments]))).splitlines()

    def environment(self) -> dict[str, str]:
        """Which hubel is tested, on which machine."""
        return self.python("environment")

    def clean(self, value: Any, key: str = "") -> Any:
        """A JSON value without words, times, versions and the sandbox's place."""
        if key in CLOCK | VERSION:
            return None
        if isinstance(value, dict):
            return {self.shown(str(name)): self.clean(each, str(name)) for name, each in value.items()}
        if isinstance(value, list):
            return [self.clean(each, key) for each in value]
        if isinstance(value, str):
            return "(words)" if key in WORDS else self.shown(value)
        return value

    def shown(self, text: str) -> str:
        """A text without the places of the sandbox and of the data."""
        text = text.replace(str(self.folder) + "/", "").replace(str(self.folder), ".")
        return text.replace(str(self.data), "DATA") if os.environ.get("HUBEL_DATA") else text

    def table(self, path: str) -> list[dict[str, Any]]:
        """Rows of a CSV file, numbers as numbers, without the columns that depend on the clock."""
        rows = csv.DictReader(io.StringIO((self.folder / path).read_text()))
        return [{name: _number(cell) for name, cell in row.items() if name not in CLOCK} for row in rows]

    def rows_of(self, path: str) -> Any:
        """A JSON file."""
        return self.clean(json.loads((self.folder / path).read_text()))

    def rows(self, path: str) -> list[Any]:
        """The documents of a JSON Lines file."""
        return [self.clean(json.loads(line)) for line in (self.folder / path).read_text().splitlines()]

    def numbers(self, path: str) -> list[list[Any]]:
        """The numbers of a file with commas and no heading, as MOTChallenge's."""
        lines = (self.folder / path).read_text().splitlines()
        return [[_number(cell) for cell in line.split(",")] for line in lines]

    def names(self, path: str) -> list[str]:
        """The files below a folder."""
        root = self.folder / path
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())

    def contents(self, path: str) -> dict[str, Any]:
        """The files below a folder: short texts as lines, images as a hash of their pixels, others as a hash."""
        root = self.folder / path
        return {name: self._content(root / name) for name in self.names(path)}

    def _content(self, file: Path) -> Any:
        if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp"):
            return pixels_of(file)
        content = file.read_bytes()
        try:
            text = self.shown(content.decode())
        except UnicodeDecodeError:
            return hashed([content])
        return text.splitlines() if len(text) <= _LONGEST_TEXT else {"characters": len(text), "text": hashed([text])}


def pixels_of(image: Path | Image.Image) -> str:
    """Size and a hash of the pixels of an image."""
    opened = image if isinstance(image, Image.Image) else Image.open(image)
    pixels = opened.convert("RGBA")
    return f"{opened.mode} {opened.width}x{opened.height} {hashed([pixels.tobytes()])}"


def hashed(parts: Iterable[bytes | str]) -> str:
    """The first half of the SHA-256 of some bytes or texts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:32]


def _number(cell: str) -> Any:
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        return float(cell)
    except ValueError:
        return cell


def page_numbers(html: str, timing_columns: Iterable[str]) -> dict[str, Any]:
    """The numbers of a report: those of its tables row by row, the others sorted.

    Args:
        html: the page.
        timing_columns: headings of ``metrics.csv``; a table of so many columns has a row an epoch, and the cells under
            headings of :data:`CLOCK` are left out.
    """
    columns = list(timing_columns)
    html = re.sub(r"<(style|script|head|footer|nav)\b.*?</\1>", "", html, flags=re.S)
    html = re.sub(r'<section id="run">.*?</section>', "", html, flags=re.S)  # versions and times
    tables = [
        [_row_numbers(row, columns) for row in re.findall(r"<tr>(.*?)</tr>", table, flags=re.S)]
        for table in re.findall(r"<table.*?</table>", html, flags=re.S)
    ]
    others = _numbers_in(re.sub(r"<table.*?</table>", "", html, flags=re.S))
    sections = re.findall(r'<section id="([\w-]+)"', html)
    images = len(re.findall(r"<img\b", html))
    return {"sections": sections, "images": images, "tables": tables, "others": sorted(others)}


def _row_numbers(row: str, columns: list[str]) -> list[float]:
    cells = re.findall(r"<td.*?>(.*?)</td>", row, flags=re.S)
    if columns and len(cells) == len(columns):
        cells = [cell for cell, name in zip(cells, columns, strict=True) if name not in CLOCK]
    return [number for cell in cells for number in _numbers_in(cell)]


def _numbers_in(html: str) -> list[float]:
    text = re.sub(r"<[^>]*>", " ", html)
    return [float(number.replace(",", "")) for number in re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)]
