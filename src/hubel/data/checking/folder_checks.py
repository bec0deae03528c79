"""Class folders: what :mod:`hubel.data.class_folder_checks` finds, as findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubel.data.checking.class_names import like_names
from hubel.data.checking.findings import Finding
from hubel.data.class_folder_checks import SKEWED, Findings, SamePicture, check_class_folders
from hubel.data.image_folder import ClassFolders, listing


def folder_findings(folders: ClassFolders, threads: int | None = None) -> tuple[list[Finding], list[tuple[str, Path]]]:
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


def _same(kind: str, pair: SamePicture, folders: ClassFolders) -> Finding:
    if kind == "same-contradiction":
        sentence = f"{folders.classes[pair.first.label]} and {folders.classes[pair.second.label]}: the same bytes."
    else:
        sentence = f"in {pair.first_split} and {pair.second_split}: the same bytes."
    return Finding(
        kind, sentence, pair.first_split, pair.first.path, other=pair.second.path, other_split=pair.second_split
    )


def _classes(checked: Findings, folders: ClassFolders) -> Iterator[Finding]:
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
