"""Read JSON and YAML that may be forged: what a file costs is bounded by its size.

A few bytes of YAML can stand for terabytes (aliases of aliases, merged keys), and a number of digits for hours. Records
of runs and models, and the small files of data sets, are read through here, whoever wrote them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_RECORD_BYTES = 16 << 20
"""Size limit of a record that hubel itself writes: splits, metadata, decisions."""

MAX_YAML_BYTES = 1 << 20
"""Size limit of a YAML file; ``data.yaml`` with ten thousand classes has a quarter of it."""

_MAX_YAML_NODES = 200_000
_MAX_YAML_DEPTH = 32
_MAX_NUMBER_LENGTH = 64
_MAX_JSON_VALUES = 4_000_000
_SHOWN = 200


class BoundError(ValueError):
    """A text is not valid, or over a bound; the message is short and completes the sentence ``FILE …``."""


def read_bytes(path: Path, limit: int = MAX_RECORD_BYTES) -> bytes:
    """Read a regular file; raises :class:`OSError`, or :class:`BoundError` for another kind or over ``limit`` bytes."""
    if path.exists() and not path.is_file():  # opening a pipe would wait forever
        raise BoundError("is not a file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise BoundError(f"has {size / 1e6:,.0f} MB, more than the limit of {limit / 1e6:,.0f} MB")
        return file.read(size or MAX_RECORD_BYTES)  # Python takes memory for as much as it is to read


def read_text(path: Path, limit: int = MAX_RECORD_BYTES) -> str:
    """Read a UTF-8 file; raises as :func:`read_bytes`, and :class:`BoundError` for another encoding."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BoundError(f"is not UTF-8 (at byte {error.start:,})") from error


def read_json(path: Path, limit: int = MAX_RECORD_BYTES) -> Any:
    """Read a JSON file; raises as :func:`read_text` and :func:`load_json`."""
    return load_json(read_text(path, limit), max(limit // 4, _MAX_JSON_VALUES))


def load_json(text: str, max_values: int = _MAX_JSON_VALUES) -> Any:
    """Parse a JSON document of at most ``max_values`` values; raises :class:`BoundError`."""
    # Each value but the first follows one of these; in strings they count too.
    if (values := sum(map(text.count, ",:[{"))) > max_values:
        raise BoundError(f"has about {values:,} values, more than the limit of {max_values:,}")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise BoundError(f"is not valid JSON ({reason})") from error
    except RecursionError as error:
        raise BoundError("is not valid JSON (nested too deeply)") from error
    except ValueError as error:
        raise BoundError("is not valid JSON (a number has thousands of digits)") from error


def read_yaml(path: Path, limit: int = MAX_YAML_BYTES) -> Any:
    """Read a YAML file; raises as :func:`read_bytes` and :func:`load_yaml`."""
    return load_yaml(read_bytes(path, limit))


def load_yaml(text: str | bytes) -> Any:
    """Parse a YAML document of plain values; raises :class:`BoundError`.

    Aliases and merged keys are read as far as what they stand for, written out, is within the bounds. Numbers and dates
    of more than 64 characters stay text.
    """
    return _read_yaml(text, construct=True)


def check_yaml(text: str | bytes) -> None:
    """Check that a YAML document is within the bounds, whoever reads it then; raises :class:`BoundError`."""
    _read_yaml(text, construct=False)


def _read_yaml(text: str | bytes, construct: bool) -> Any:
    import yaml

    kind: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    try:
        _check_events(yaml.parse(text, kind))
        loader = kind(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, {})
            return loader.construct_document(node) if construct else None
        finally:
            loader.dispose()
    except BoundError:
        raise
    except RecursionError as error:
        raise BoundError("is not valid YAML (nested too deeply)") from error
    except Exception as error:  # a tag beside a value that does not fit it raises anything
        raise BoundError(f"is not valid YAML ({_yaml_fault(error)[:_SHOWN]})") from error


_YAML_FAULTS = {
    "did not find expected ',' or ']'": "a list that begins with [ here has no ]",
    "did not find expected ',' or '}'": "what begins with { here has no }",
    "mapping values are not allowed in this context": "a colon, or a deeper indent, where neither can be: put quotes "
    "around a value with a colon",
    "found character that cannot start any token": "a tab, or a value that begins with @, ` or %: indent with spaces, "
    "and put quotes around such a value",
    "found unexpected end of stream": "a text that begins with a quotation mark here does not end",
    "found undefined alias": "a value that begins with * refers to nothing: put quotes around it",
    "did not find expected key": "no NAME: VALUE of the same indent as those above",
    "did not find expected '-' indicator": "the list above goes on without -",
    "found unknown escape character": "a backslash in double quotation marks: use single ones",
    "but found another document": "a second document begins after ---",
}
"""What a person can do something about, by the words of the YAML library."""

_AT_BEGINNING = ("']'", "'}'", "end of stream")  # faults that are where the value begins


def _yaml_fault(error: Exception) -> str:
    """Where the fault is and what it is, such as ``line 2, column 4: …``."""
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        return f"a byte or character that no text has, at position {error.position + 1:,}"
    if not isinstance(error, yaml.MarkedYAMLError):
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    problem = str(error.problem or error.context or "")
    mark = error.problem_mark or error.context_mark
    if problem.endswith(_AT_BEGINNING) and error.context_mark is not None:
        mark = error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + _YAML_FAULTS.get(problem, problem)


def _check_events(events: Iterable[Any]) -> None:
    """Bound depth and length before any node is made: PyYAML composes nodes by recursion, in C without a limit."""
    import yaml

    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_YAML_DEPTH:
            raise BoundError("is not valid YAML (nested too deeply)")
        if count > 2 * _MAX_YAML_NODES:
            raise BoundError(f"has more than {_MAX_YAML_NODES:,} values")


def _check_node(node: Any, sizes: dict[int, int]) -> int:
    """Number of nodes that ``node`` stands for with all aliases written out; ``sizes`` has those that are known."""
    size = sizes.get(id(node))
    if size is None:
        sizes[id(node)] = 0  # while it is open
        if isinstance(node.value, str):
            parts: list[Any] = []
            if len(node.value) > _MAX_NUMBER_LENGTH:  # the time that a number in base 60 takes grows with its square
                node.tag = "tag:yaml.org,2002:str"
        elif node.id == "mapping":
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value
        size = sizes[id(node)] = 1 + sum(_check_node(part, sizes) for part in parts)
    elif size == 0:
        raise BoundError("is not valid YAML (a value contains itself)")
    if size > _MAX_YAML_NODES:
        raise BoundError(f"stands for more than {_MAX_YAML_NODES:,} values, most of them by aliases or merged keys")
    return size
