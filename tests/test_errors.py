"""Errors read alike: the message and the hint begin with a small letter and end without a full stop."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubel
from hubel.errors import HubelError, MissingExtraError

SOURCES = sorted(Path(hubel.__file__).parent.rglob("*.py"))
ERRORS = {"HubelError", "UsageError", "ImageError", "DataError", "ModelError", "WeightsError", "ConversionError"}
NAMES = ("LeNet", "FFmpeg", "Ray")  # begin with a capital wherever they stand


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of the literals that are messages and hints, also by way of a name; ``{…}`` for what is put in."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values.setdefault(node.targets[0].id, []).append(node.value)

    def literals(node: ast.expr) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.IfExp):
            yield from literals(node.body)
            yield from literals(node.orelse)
        elif isinstance(node, ast.Name) and (node.id in ("message", "hint") or node.id.startswith("_")):
            for value in values.get(node.id, []):
                if not isinstance(value, ast.Name):
                    yield from literals(value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values]
            yield node.lineno, "".join(parts)

    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name in ERRORS:
                for argument in node.args[:2]:
                    yield from literals(argument)


def test_all_errors_are_written_alike() -> None:
    found = [
        f"{path.name}:{line}: {text}"
        for path in SOURCES
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(found) > 600
    assert [
        each
        for each in found
        if re.search(r"(?<!\.)\.$", each)
        or (re.match(r"\S+ [A-Z][a-z]", each) and not each.split()[1].startswith(NAMES))
    ] == []


def test_missing_extra_names_its_install_command() -> None:
    with pytest.raises(HubelError) as caught:
        raise MissingExtraError("reading HEIC", "heif")
    assert str(caught.value) == "reading HEIC needs packages that are not installed\npip install 'hubel[heif]'"
