"""Kinds of findings, and the record of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hubel.masks import Box

Severity = Literal["error", "warning"]
"""An error certainly harms training or scores; a warning deserves a look."""


@dataclass(frozen=True)
class Kind:
    """One kind of finding: its name in JSON, the heading above its findings, and what to do, one sentence."""

    name: str
    severity: Severity
    title: str
    hint: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("missing", "error", "Missing images", "Restore the files; --fix leaves these images out."),
        Kind("unreadable", "error", "Unreadable images", "Copy the files again; --fix leaves these images out."),
        Kind("label-fault", "error", "Errors in label files", "Export the file again, or correct the row."),
        Kind("unknown-class", "error", "Unknown classes", "Add the class to the list, or correct its index."),
        Kind("unrotated", "error", "Labels that ignore the EXIF rotation", "--fix rotates them."),
        Kind("size", "error", "Label files that state a wrong image size",
             "Find the image that was labelled, or scale the labels."),
        Kind("fractions", "error", "Fractions instead of pixels", "Multiply them by the image size."),
        Kind("pixels", "error", "Pixels instead of fractions", "Divide them by the image size."),
        Kind("corners", "error", "Corners instead of width and height", "Export again as x, y, width, height."),
        Kind("sizes", "error", "Width and height instead of corners", "Export again as corners."),
        Kind("degenerate", "error", "Boxes without area", "Draw them again; --fix removes them."),
        Kind("outside", "error", "Boxes outside the image", "Draw them again or delete them."),
        Kind("outline-outside", "error", "Outlines outside the image", "Draw them again or delete them."),
        Kind("outline-empty", "error", "Outlines and masks without pixels", "Draw them again or delete them."),
        Kind("contradiction", "error", "One object, two classes", "Delete the box of the wrong class."),
        Kind("class-spelling", "error", "One class in several spellings", "--fix merges them into the most frequent."),
        Kind("same-elsewhere", "error", "The same image in two splits", "Delete it from one of them."),
        Kind("same-contradiction", "error", "The same image in two classes", "Keep it in the class it belongs to."),
        Kind("classes", "error", "Too little to train on", "Add images, or remove the class."),
        Kind("unlabelled", "warning", "Unlabelled images",
             "Label them; an image without objects gets an empty label file."),
        Kind("partly-outside", "warning", "Boxes that extend beyond the image", "--fix clips them at its edge."),
        Kind("outline-apart", "warning", "Outlines that do not fit their boxes", "Draw one of them again."),
        Kind("duplicate", "warning", "Boxes drawn twice", "Delete one; --fix does if they are equal."),
        Kind("tiny", "warning", "Boxes of about a pixel", "Delete those drawn by accident."),
        Kind("whole-picture", "warning", "Boxes as large as the image", "Check that this is intended."),
        Kind("counting", "warning", "Pixels counted from 0 and from 1",
             "Safe to ignore unless single-pixel accuracy matters."),
        Kind("class-likeness", "warning", "Rare classes that may be misspelled", "Rename the class if it is."),
        Kind("class-absent", "warning", "Classes without objects", "Add some, or split the data again."),
        Kind("skew", "warning", "Imbalanced classes", "Collect more of the rare ones, or weight them in training."),
        Kind("near-elsewhere", "warning", "Nearly identical images in two splits",
             "Keep images of one scene in one split."),
        Kind("same", "warning", "The same image twice in one split", "Delete one."),
        Kind("near", "warning", "Nearly identical images in one split", "Delete one if it adds nothing."),
    )
}  # fmt: skip
"""All kinds by name, in the order in which they are reported."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, or possible problem.

    Attributes:
        kind: a name in :data:`KINDS`.
        message: the problem, one sentence; images and files are named by the other fields.
        object: number of the object in its label file, from 1, counting those that could be read.
        box: of that object, in pixels of the upright image.
        name: of that object's class.
        other: the second of two equal images.
    """

    kind: str
    message: str
    split: str | None = None
    image: Path | None = None
    label_file: Path | None = None
    object: int | None = None
    box: Box | None = None
    name: str | None = None
    other: Path | None = None
    other_split: str | None = None

    @property
    def severity(self) -> Severity:
        """Severity of its kind."""
        return KINDS[self.kind].severity

    def place(self) -> str:
        """The image or label file and the object; empty for a finding about the whole data set."""
        parts = [str(self.image or self.label_file or "")]
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
            "picture": self.image and str(self.image),
            "label_file": self.label_file and str(self.label_file),
            "object": self.object,
            "class": self.name,
            "box": list(self.box) if self.box else None,
            "other_picture": self.other and str(self.other),
            "other_split": self.other_split,
            "sentence": self.message,
            "remedy": KINDS[self.kind].hint,
        }
