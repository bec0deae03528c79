"""What label files themselves are at fault in, and the label files and pictures that miss each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hubel.data.annotations.parsing import decode_text
from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.annotations.yolo import NAME_FILES
from hubel.data.checks.classes import like_names
from hubel.data.checks.findings import Finding
from hubel.data.checks.training_checks import SKEWED, DuplicatePair, Findings, check_class_folders
from hubel.data.file_listing import listing
from hubel.data.samples import ImageDataset
from hubel.errors import DataError

_FILE = re.compile(r"^(.+?\.(?:xml|json|txt|csv|ndjson|jsonl|ya?ml))(?:, ([^:]+))?(?:: | )", re.IGNORECASE)
_UNKNOWN_CLASS = re.compile(r"is none of the (\d+ class|categories)")


def fault_findings(faults: Iterable[DataError]) -> Iterator[Finding]:
    """A reader's faults."""
    for message in faults:
        kind = "unknown-class" if _UNKNOWN_CLASS.search(message.message) else "label-fault"
        place = _FILE.match(message.message)
        if place is None:
            yield Finding(kind, message.message)
            continue
        row = f"{place[2]}: " if place[2] else ""
        yield Finding(kind, row + message.message[place.end() :], label_file=Path(place[1]))


def unlabelled(dataset: AnnotatedDataset, faulty: Iterable[Path]) -> Iterator[Finding]:
    """Pictures that nobody labelled; those whose label file is at fault are not among them."""
    stems = {file.stem for file in faulty}
    for split, images in dataset.splits.items():
        for image in images:
            if image.objects is None and image.label_file is None and image.path.stem not in stems:
                yield Finding("unlabelled", "has no labels, not even an empty file.", split, image.path)


def without_picture(dataset: AnnotatedDataset) -> Iterator[Finding]:
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
            words = decode_text(stream.read(400)).split()
    except OSError:
        return False
    return len(words) >= 5 and all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", word) for word in words[:5])


def folder_findings(folders: ImageDataset, threads: int | None = None) -> tuple[list[Finding], list[tuple[str, Path]]]:
    """What is wrong with class folders, and the readable pictures, each with its split.

    Args:
        folders: the data set.
        threads: that decode pictures.
    """
    checked = check_class_folders(folders.splits, folders.classes, threads=threads)
    found = [
        Finding("unreadable", _without(each.reason, each.sample.path), each.split, each.sample.path)
        for each in checked.unreadable
    ]
    found += [_same("same-contradiction", pair, folders) for pair in checked.contradictions]
    found += [_same("same-elsewhere", pair, folders) for pair in checked.leaks]
    found += _classes(checked, folders)
    readable = [(split, each.path) for split, samples in folders.splits.items() for each in checked.usable(samples)]
    return found, readable


def _same(kind: str, pair: DuplicatePair, folders: ImageDataset) -> Finding:
    if kind == "same-contradiction":
        sentence = f"{folders.classes[pair.first.label]} and {folders.classes[pair.second.label]}: the same bytes."
    else:
        sentence = f"in {pair.first_split} and {pair.second_split}: the same bytes."
    return Finding(
        kind, sentence, pair.first_split, pair.first.path, other=pair.second.path, other_split=pair.second_split
    )


def _classes(checked: Findings, folders: ImageDataset) -> Iterator[Finding]:
    if len(folders.classes) < 2:
        yield Finding("classes", f"there is one class only ({listing(folders.classes)}): two are needed.")
    for split, counts in checked.counts.items():
        none = [name for name, count in zip(folders.classes, counts, strict=True) if not count]
        if none and split in ("train", "all"):
            yield Finding("classes", f"no readable picture in {split} of {listing(none)}.", split)
        elif none:
            yield Finding("class-absent", f"no readable picture in {split} of {listing(none)}.", split)
    totals = [sum(column) for column in zip(*checked.counts.values(), strict=True)]
    named = {name: count for name, count in zip(folders.classes, totals, strict=True) if count}
    for rare, frequent in like_names(named):
        yield Finding("class-likeness", f"{rare!r} ({named[rare]} pictures) may be {frequent!r} ({named[frequent]}).")
    there = [(count, name) for name, count in named.items()]
    if there and (most := max(there))[0] >= SKEWED * (least := min(there))[0]:
        yield Finding("skew", f"{most[0]:,} pictures of {most[1]}, {least[0]:,} of {least[1]}.")


def _without(reason: str, path: Path) -> str:
    return reason.removeprefix(f"{path} ").removeprefix(f"{path}: ")
