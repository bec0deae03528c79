"""Checks that a ``torch.export`` archive holds nothing but tensors and a graph of tensor operators.

``torch.export.load`` unpickles what an archive declares as pickled, loads compiled libraries in it, evaluates its
expressions of sizes, and calls any function of torch that its graph names. None of that is needed for a network.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubel.bounded import load_json
from hubel.errors import ModelError

_PARTS = re.compile(
    r"[^/]+/("
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|"
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|extra/metadata\.json"
    r")"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|torchvision)\.\w+\.\w+|torch\.sym_\w+|"
    r"_operator\.(getitem|add|sub|mul|floordiv|mod|neg|[lg][et]|eq|ne)"
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_EXPRESSION = re.compile(r"[\w\s'(),=+*/<>&|~-]*")
_NUMBER = re.compile(r"[a-z]{1,2}\d+")
_WORDS = frozenset((
    *("Symbol", "positive", "nonnegative", "integer", "True", "False", "Integer", "oo", "int_oo"),
    *("Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "And", "Or", "Not"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality"),  # codespell:ignore
    *("LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan"),
))  # fmt: skip
_MAX_JSON = 64 << 20  # bytes of all parts together
_MAX_DEPTH = 100


def check_program(path: Path) -> str:
    """The text of the archive's ``metadata.json``.

    Raises:
        ModelError: the archive holds something that could run code when it is loaded.
        OSError, ValueError, zipfile.BadZipFile, RecursionError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        texts: dict[str, str] = {}
        described = 0
        for part in archive.infolist():
            name = part.filename.partition("/")[2]
            if not _PARTS.fullmatch(part.filename) or (name == "data/sample_inputs/model.pt" and part.file_size):
                raise _refusal(path, f"contains {part.filename!r:.80}")
            if name.endswith(".json"):
                described += part.file_size
                if described > _MAX_JSON or name in texts:
                    raise _refusal(path, f"describes itself in {described / 1e6:.0f} MB, or twice")
                texts[name] = archive.read(part).decode("utf-8")
    for name, text in texts.items():
        if name != "extra/metadata.json":
            for key, value in _entries(load_json(text)):
                _check_entry(path, key, value)
    if "extra/metadata.json" not in texts:
        raise ModelError(f"{path} has no metadata: it is not from hubel export", "use a file that hubel export wrote")
    return texts["extra/metadata.json"]


def _check_entry(path: Path, key: str, value: Any) -> None:
    if key == "use_pickle" and value is not False:
        raise _refusal(path, "contains pickled tensors")
    if key == "target" and not (isinstance(value, str) and _OPERATORS.fullmatch(value)):
        raise _refusal(path, f"calls {value!r:.80}")
    if key == "expr_str" and not _is_size(value):
        raise _refusal(path, f"has a size {value!r:.80}")


def _is_size(expression: Any) -> bool:
    """Check for an expression of symbols such as ``s0`` that calls nothing but arithmetic."""
    if not isinstance(expression, str) or not _EXPRESSION.fullmatch(expression):
        return False
    return all(word in _WORDS or _NUMBER.fullmatch(word) for word in _WORD.findall(expression))


def _entries(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Keys and values of all dictionaries in a JSON document."""
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if isinstance(key, str):
            yield key, child
        yield from _entries(child, depth + 1)


def _refusal(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} {reason}, which hubel export does not write and which could run code",
        "use it only with torch.export.load, if you trust where it comes from",
    )
