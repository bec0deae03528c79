"""Where two JSON documents differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LONGEST = 100


@dataclass(frozen=True)
class Difference:
    """One value that is not what it was.

    Attributes:
        path: from the root, as in ``runs.metrics[3].AP``.
        old: the recorded value.
        new: the value now.
        relative: of two numbers, their difference over the larger one.
    """

    path: str
    old: str
    new: str
    relative: float | None = None

    def __str__(self) -> str:
        size = "" if self.relative is None else f"  (relative {self.relative:.2g})"
        return f"{self.path}: {self.old} → {self.new}{size}"


def differences(old: Any, new: Any, tolerance: float = 0.0) -> list[Difference]:
    """Every difference, in the order of the document.

    Args:
        old: the recorded document.
        new: the same of another version.
        tolerance: by how much two numbers may differ, relative to the larger one. If it is not 0, values under the key
            ``sha256`` are not compared.
    """
    return list(_differences(old, new, "", tolerance))


def _differences(old: Any, new: Any, path: str, tolerance: float) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key == "sha256" and tolerance:
                continue
            inner = f"{path}.{key}" if path else key
            if key not in new:
                yield Difference(inner, _short(old[key]), "missing")
            elif key not in old:
                yield Difference(inner, "missing", _short(new[key]))
            else:
                yield from _differences(old[key], new[key], inner, tolerance)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield Difference(path, f"{len(old)} items", f"{len(new)} items")
        for index, (first, second) in enumerate(zip(old, new, strict=False)):
            yield from _differences(first, second, f"{path}[{index}]", tolerance)
    elif _is_number(old) and _is_number(new):
        relative = abs(old - new) / max(abs(old), abs(new)) if old != new else 0.0
        if relative > tolerance:
            yield Difference(path, repr(old), repr(new), relative)
    elif old != new or type(old) is not type(new):
        yield Difference(path, _short(old), _short(new))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
