"""A format: how a tool's files are recognized, read and written, and what they can hold."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from hubel.data.annotations.encodings import decode_text
from hubel.data.annotations.reader import AnnotationReader, LabelFiles
from hubel.data.annotations.records import FLAGS, AnnotatedDataset
from hubel.data.annotations.writer import DatasetWriter

FREE_FORM_FIELDS = frozenset({*FLAGS, "attributes", "annotator", "score", "area"})
"""Fields that formats with free attributes support: those without a place of their own become attributes."""

_HEAD_BYTES = 1 << 16
_JSON_SUFFIXES = (".json", ".ndjson", ".jsonl")
# A string may be cut off where the head ends. The quantifier gives nothing back: time is linear in the text's length.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\]:,]', re.DOTALL)
_XML_TAG = re.compile(r"<(?:[A-Za-z_][\w.-]{0,99}:)?([A-Za-z_][\w.-]*)")  # after the prefix of a namespace
_XML_PROLOGUE = (("<!--", "-->"), ("<?", "?>"), ("<!DOCTYPE", ">"))  # how each part of it begins and ends


class FileHead:
    """The first 64 KB of a file, from which its format is recognized; no text if the file cannot be read."""

    def __init__(self, file: Path) -> None:
        self.suffix = file.suffix.lower()
        try:
            with file.open("rb") as stream:
                text = decode_text(stream.read(_HEAD_BYTES)).lstrip("\ufeff")
                self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        except OSError:
            self.text = ""

    @cached_property
    def xml_root(self) -> str:
        """Tag of an XML file's root element; empty for other files."""
        if self.suffix != ".xml" and not self.text.startswith("<"):
            return ""
        position = self.text.find("<")
        while position >= 0:
            end = next((end for start, end in _XML_PROLOGUE if self.text.startswith(start, position)), "")
            if not end:
                tag = _XML_TAG.match(self.text, position)
                return tag[1] if tag else ""
            position = self._end_of_prologue(position, end)
        return ""

    def _end_of_prologue(self, position: int, end: str) -> int:
        """Where the next ``<`` is after a part of the prologue; -1 if there is none."""
        if end == ">":
            inner = self.text.find("[", position)  # a document type may hold declarations, in brackets
            if 0 <= inner < self.text.find(">", position):
                position = self.text.find("]", inner)
        position = self.text.find(end, position) if position >= 0 else -1
        return self.text.find("<", position) if position >= 0 else -1

    @cached_property
    def is_json_list(self) -> bool:
        """True for a JSON file that begins with a list."""
        return self.suffix in _JSON_SUFFIXES and self.text.startswith("[")

    @cached_property
    def keys(self) -> dict[int, set[str]]:
        """Field names in a JSON file by depth, from 1, as far as the head shows them; empty sets for other files."""
        keys: dict[int, set[str]] = defaultdict(set)
        if self.suffix not in _JSON_SUFFIXES or self.text.startswith("<"):
            return keys
        depth = 0
        last = ""
        for match in _JSON_TOKEN.finditer(self.text):
            token = match[0]
            if token in "{[":
                depth += 1
            elif token in "}]":
                depth -= 1
            elif token == ":" and last:
                keys[depth].add(last[1:-1])
            last = token if token[0] == '"' else ""
        return keys


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        layout: what is looked for, in one line.
        supports: keys of :data:`hubel.data.annotations.writer.LOSSES` that are not lost; ``"labelled"`` where an image
            says which classes it labels.
        sort_classes: classes have no order of their own and are sorted by name.
        file_holds: the labels of one image, of any number of images, or of a whole data set.
        find_folders: given the root, the folders with images and those with text files, the folders of images whose
            labels can only be recognized together; used where no single file is recognized.
        boxes: how its boxes are written, to recognize data sets that mix up conventions.
    """

    name: str
    title: str
    layout: str
    recognizes: Callable[[FileHead], bool]
    read: Callable[[AnnotationReader, LabelFiles], None]
    write: Callable[[AnnotatedDataset, DatasetWriter], None]
    supports: frozenset[str]
    sort_classes: bool = True
    file_holds: Literal["image", "images", "dataset"] = "images"
    find_folders: Callable[[Path, Sequence[Path], Sequence[Path]], list[Path]] | None = None
    boxes: Literal["xyxy", "xywh", "fractions", "other"] = "other"
