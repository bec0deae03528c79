"""What label files themselves are at fault in, and the label files and pictures that miss each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hubel.data.annotations.records import LabelledDataset
from hubel.data.annotations.safe_parsing import decoded
from hubel.data.annotations.yolo import NAME_FILES
from hubel.data.checking.findings import Finding
from hubel.errors import DataError

_FILE = re.compile(r"^(.+?\.(?:xml|json|txt|csv|ndjson|jsonl|ya?ml))(?:, ([^:]+))?(?:: | )", re.IGNORECASE)
_UNKNOWN_CLASS = re.compile(r"is none of the (\d+ class|categories)")


def fault_findings(faults: Iterable[DataError]) -> Iterator[Finding]:
    """A reader's faults."""
    for fault in faults:
        kind = "unknown-class" if _UNKNOWN_CLASS.search(fault.fault) else "label-fault"
        place = _FILE.match(fault.fault)
        if place is None:
            yield Finding(kind, fault.fault)
            continue
        row = f"{place[2]}: " if place[2] else ""
        yield Finding(kind, row + fault.fault[place.end() :], label_file=Path(place[1]))


def unlabelled(dataset: LabelledDataset, faulty: Iterable[Path]) -> Iterator[Finding]:
    """Pictures that nobody labelled; those whose label file is at fault are not among them."""
    stems = {file.stem for file in faulty}
    for split, images in dataset.splits.items():
        for image in images:
            if image.objects is None and image.label_file is None and image.path.stem not in stems:
                yield Finding("unlabelled", "has no labels, not even an empty file.", split, image.path)


def without_picture(dataset: LabelledDataset) -> Iterator[Finding]:
    """YOLO's label files that belong to no picture; in other formats label files name theirs."""
    if dataset.format != "yolo":
        return
    stems = {image.path.stem for image in dataset.images()}
    folders = {image.label_file.parent for image in dataset.images() if image.label_file}
    for folder in sorted(folders):
        for file in sorted(folder.glob("*.txt")):
            if file.stem not in stems and file.name not in NAME_FILES and _has_rows(file):
                yield Finding("missing", "no picture has the name of this label file.", label_file=file)


def _has_rows(file: Path) -> bool:
    """Whether it begins as label files do, not as a README or a list of pictures."""
    try:
        with file.open("rb") as stream:
            words = decoded(stream.read(400)).split()
    except OSError:
        return False
    return len(words) >= 5 and all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", word) for word in words[:5])
