"""What a check can find: the table of kinds, and the record of one finding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hubel.masks import Box

Severity = Literal["error", "warning"]
"""An error spoils training or scores for certain; a warning is worth a look."""


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        name: in JSON.
        severity: of all findings of the kind.
        title: heads the findings of the kind.
        remedy: the way out, one sentence.
    """

    name: str
    severity: Severity
    title: str
    hint: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("missing", "error", "Pictures that are not there", "Put them in their place; --fix leaves them out."),
        Kind("unreadable", "error", "Pictures that cannot be read", "Copy them again; --fix leaves them out."),
        Kind("label-fault", "error", "Faults of label files", "Export the file again, or mend the row."),
        Kind("unknown-class", "error", "Classes that no list names", "Add the class to the list, or mend the number."),
        Kind("unrotated", "error", "Labels made on the picture before its EXIF rotation", "--fix turns them."),
        Kind("size", "error", "Label files that state another size than the picture has",
             "Find the picture that was labelled, or scale the labels."),
        Kind("fractions", "error", "Fractions among pixels", "Multiply them by the picture's size."),
        Kind("pixels", "error", "Pixels among fractions", "Divide them by the picture's size."),
        Kind("corners", "error", "Corners where width and height belong", "Export again as x, y, width, height."),
        Kind("sizes", "error", "Width and height where corners belong", "Export again as corners."),
        Kind("degenerate", "error", "Boxes without area", "Draw them again; --fix leaves them out."),
        Kind("outside", "error", "Boxes outside their picture", "Draw them again or delete them."),
        Kind("contradiction", "error", "One object, two classes", "Delete the box of the wrong class."),
        Kind("class-spelling", "error", "One class in several spellings", "--fix merges them into the most frequent."),
        Kind("same-elsewhere", "error", "The same picture in two splits", "Delete it from one of them."),
        Kind("same-contradiction", "error", "The same picture in two classes", "Keep it in the class it belongs to."),
        Kind("classes", "error", "Too little to train on", "Add pictures, or remove the class."),
        Kind("unlabelled", "warning", "Pictures without labels",
             "Label them; one that shows nothing of the classes gets an empty label file."),
        Kind("partly-outside", "warning", "Boxes that leave their picture", "--fix cuts them off at its edge."),
        Kind("duplicate", "warning", "Boxes drawn twice", "Delete one; --fix does where they are equal."),
        Kind("tiny", "warning", "Boxes of hardly a pixel", "Delete what was a slip of the hand."),
        Kind("whole-picture", "warning", "Boxes as large as the picture", "See that they were meant so."),
        Kind("counting", "warning", "Pixels counted from 0 and from 1", "Nothing, unless a pixel matters."),
        Kind("class-likeness", "warning", "Rare classes named like frequent ones", "Rename it if it is one."),
        Kind("class-absent", "warning", "Classes without objects", "Add some, or split the data anew."),
        Kind("skew", "warning", "Very uneven classes", "Collect more of the rare ones; weigh them in training."),
        Kind("near-elsewhere", "warning", "Nearly the same picture in two splits",
             "Keep pictures of one scene in one split."),
        Kind("same", "warning", "The same picture twice in a split", "Delete one."),
        Kind("near", "warning", "Nearly the same picture twice in a split", "Delete one, if it adds nothing."),
    )
}  # fmt: skip
"""All kinds by name, in the order in which they are told."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        kind: a name in :data:`KINDS`.
        sentence: what is wrong; pictures and files are named by the other fields.
        split: in which split.
        picture: which picture.
        label_file: where its labels stand.
        object: the object's number in its label file, from 1, counting those that could be read.
        box: of that object, in pixels of the upright picture.
        name: of that object's class.
        other: the second picture, of two that are the same.
        other_split: where that is.
    """

    kind: str
    sentence: str
    split: str | None = None
    picture: Path | None = None
    label_file: Path | None = None
    object: int | None = None
    box: Box | None = None
    name: str | None = None
    other: Path | None = None
    other_split: str | None = None

    @property
    def severity(self) -> Severity:
        """The kind's."""
        return KINDS[self.kind].severity

    @property
    def hint(self) -> str:
        """The kind's."""
        return KINDS[self.kind].hint

    def place(self) -> str:
        """Which picture, or label file, and which object; empty for what concerns the whole data set."""
        parts = [str(self.picture or self.label_file or "")]
        if self.object is not None:
            parts.append(f"object {self.object}" + (f" ({self.name})" if self.name else ""))
        if self.other is not None:
            parts.append(f"and {self.other}")
        return ", ".join(parts).replace(", and ", " and ")

    def as_json(self) -> dict[str, Any]:
        """The finding for ``--json``."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "split": self.split,
            "picture": _text(self.picture),
            "label_file": _text(self.label_file),
            "object": self.object,
            "class": self.name,
            "box": list(self.box) if self.box else None,
            "other_picture": _text(self.other),
            "other_split": self.other_split,
            "sentence": self.sentence,
            "remedy": self.hint,
        }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
