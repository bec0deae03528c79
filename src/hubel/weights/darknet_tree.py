"""Darknet's word trees (``9k.tree``) and maps (``coco9k.map``): classes that are kinds of others, as text.

A line of a tree is ``NAME PARENT``: the class of that index, from 0, and the index of the class that it is a kind of,
-1 for none. Children of a class stand in adjacent lines, after it; they exclude each other, and so do all roots. A line
of a map is the index of a class. Facts of the formats are those of pjreddie/darknet (``tree.c``); names may contain
spaces here. Both are untrusted: what is not a tree is refused by its line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hubel.bounded import BoundError, read_text
from hubel.errors import ModelError
from hubel.weights.darknet_cfg import MOST_CHANNELS

LARGEST_TREE = 1 << 18
"""Bytes: a model's file keeps the text (the tree of YOLO9000 has 140,047)."""

_LONGEST_NAME = 200
_TREE_HINT = "a line is NAME PARENT, the parent being the index of a line above, from 0, or -1"
_MAP_HINT = "a line is the index of a class of the tree, from 0"


@dataclass(frozen=True)
class Tree:
    """Classes, and the class that each is a kind of.

    Attributes:
        names: of the N classes.
        parents: indices (N,), each less than the class's own; -1 for roots.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]

    @property
    def groups(self) -> list[range]:
        """Classes with the same parent, which exclude each other, in the order of the tree."""
        starts = [index for index, parent in enumerate(self.parents) if not index or parent != self.parents[index - 1]]
        return [range(start, end) for start, end in zip(starts, [*starts[1:], len(self.parents)], strict=True)]


def read_lines(path: Path, what: str) -> str:
    """The text of a file of lines; ``what`` it is, for messages.

    Raises:
        ModelError: it cannot be read, or is larger than any.
    """
    try:
        return read_text(path, LARGEST_TREE)
    except (OSError, BoundError) as error:
        reason = f"it {error}" if isinstance(error, BoundError) else error.strerror or error
        message = f"{path} cannot be read as {what}: {reason}"
        raise ModelError(message, "pass the file that Darknet itself reads") from error


@lru_cache(maxsize=4)
def parse_tree(text: str, origin: str = "the tree") -> Tree:
    """The tree that a text is.

    Raises:
        ModelError: it is not one: a line is not a name and a number, a name stands there twice, a parent is not above,
            or siblings are apart. The message names ``origin`` and the line.
    """
    lines = text.rstrip().splitlines()
    if not lines:
        raise ModelError(f"{origin} has no classes", _TREE_HINT)
    if len(lines) > MOST_CHANNELS:
        raise ModelError(f"{origin} has more than {MOST_CHANNELS:,} classes", "use a smaller tree")
    parents: list[int] = []
    line_of: dict[str, int] = {}
    first_child: dict[int, int] = {}  # line of the first child of each class
    for number, line in enumerate(lines, 1):
        words = line.rsplit(maxsplit=1)
        if len(words) < 2 or not re.fullmatch(r"-?\d{1,9}", words[1], re.ASCII):
            raise _fault(origin, number, f"it is not NAME PARENT: {line:.40}")
        name, parent = words[0].strip(), int(words[1])
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise _fault(origin, number, f"this is not a name: {name[:40]!r}")
        if name in line_of:
            raise _fault(origin, number, f"{name:.40} is in line {line_of[name]} already")
        if not -1 <= parent < number - 1:
            raise _fault(origin, number, f"the parent of {name:.40}, {parent}, is not the index of a line above")
        if parent in first_child and parent != parents[-1]:
            siblings = f"children of {parent}" if parent >= 0 else "roots"
            first = first_child[parent]
            raise _fault(origin, number, f"{name:.40} is apart from the other {siblings}, from line {first} on")
        first_child.setdefault(parent, number)
        line_of[name] = number
        parents.append(parent)
    return Tree(tuple(line_of), tuple(parents))


@lru_cache(maxsize=4)
def parse_map(text: str, tree: Tree, origin: str = "the map") -> tuple[int, ...]:
    """The classes of a tree that a text lists, each once.

    Raises:
        ModelError: a line is not the index of a class, or one that was there already. The message names ``origin`` and
            the line.
    """
    found: dict[int, int] = {}
    for number, line in enumerate(text.rstrip().splitlines(), 1):
        if not re.fullmatch(r"\d{1,9}", line.strip(), re.ASCII) or int(line) >= len(tree.names):
            message = f"{line.strip():.40} is not the index of one of {len(tree.names):,} classes"
            raise _fault(origin, number, message, _MAP_HINT)
        if int(line) in found:
            raise _fault(origin, number, f"{int(line)} is in line {found[int(line)]} already", _MAP_HINT)
        found[int(line)] = number
    if not found:
        raise ModelError(f"{origin} has no classes", _MAP_HINT)
    return tuple(found)


def to_text(names: Sequence[str], parents: Sequence[int]) -> str:
    """The lines of a tree."""
    return "".join(f"{name} {parent}\n" for name, parent in zip(names, parents, strict=True))


def _fault(origin: str, number: int, message: str, hint: str = _TREE_HINT) -> ModelError:
    return ModelError(f"line {number} of {origin}: {message}", hint)
