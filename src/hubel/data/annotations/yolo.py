"""YOLO: one text file a picture, one line an object, in fractions of the upright picture.

``CLASS X Y WIDTH HEIGHT`` with the box's centre; ``CLASS X1 Y1 X2 Y2 X3 Y3 …`` is an outline; a sixth number is a
score. Ultralytics' loaders apply the EXIF rotation, so fractions are of the upright picture; Darknet's do not.
Classes are those of ``names`` in ``data.yaml`` (a list, or names by number), else of ``classes.txt`` or ``obj.names``,
else the numbers. An empty file says that there is nothing; no file, that nobody has looked.

Pictures: ``train``, ``val``, ``test`` of ``data.yaml`` are folders, lists of those, or text files with a picture a
line, from ``path`` or from the file; Roboflow's ``../train/images`` means ``train/images``. Where ``train`` and
``val`` are the same, the data set is unsplit. The labels of ``images/a/b.jpg`` are in ``labels/a/b.txt``, else beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubel.data.annotations.polygons import corners, joined
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Polygon
from hubel.data.annotations.safe_parsing import LARGEST_OF_ONE, read_bytes, read_text
from hubel.data.annotations.validators import InvalidAnnotation, around, number, text, whole
from hubel.data.annotations.writer import DatasetWriter, split_dir
from hubel.data.image_folder import SPLIT_NAMES
from hubel.errors import DataError

NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "classes.names")
"""Files that list the classes, a line each, where no ``data.yaml`` does."""


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read a data set: ``files`` is its ``data.yaml``, or the folders of pictures, each with its split."""
    names: dict[int, str] = {}
    pictures: list[tuple[str, Path]] = []
    for split, path in files:
        if path.suffix.lower() in (".yaml", ".yml"):
            with reading.at(path):
                content = _yaml(path)
                names |= _names(content.get("names"))
                pictures += _declared(reading, path, content)
        else:
            pictures += [(split, picture) for picture in reading.pictures.within(path)]
    if not names:
        names = _listed_names(reading)
    rows = [(split, picture, _label_file(reading, picture)) for split, picture in pictures]
    if not names:
        numbers = sorted({number_of for _, _, file in rows if file for number_of in _numbers(reading, file)})
        names = {number_of: str(number_of) for number_of in range(numbers[-1] + 1)} if numbers else {}
        reading.warn("no file names the classes: they are called by their numbers")
    order = sorted(names)
    if order != list(range(len(order))):
        raise DataError(f"{reading.root} numbers its classes {order[:5]}…, not from 0.", "Number names from 0.")
    for number_of in order:
        if reading.label(names[number_of]) != number_of:
            message = f"{reading.root} has the class {names[number_of]!r} twice."
            raise DataError(message, "Give each class a name of its own in data.yaml.")
    for split, picture, file in rows:
        _read_picture(reading, split, picture, file)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_bytes(path, 1 << 20))
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidAnnotation(f"is no YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise InvalidAnnotation("has no named entries")
    return content


def _names(names: Any) -> dict[int, str]:
    if isinstance(names, dict):
        return {whole(key, "a class number"): text(name, "a class name") for key, name in names.items()}
    if isinstance(names, list):
        return {place: text(name, "a class name") for place, name in enumerate(names)}
    if names is None:
        return {}
    raise InvalidAnnotation("names is neither a list nor names by number")


def _listed_names(reading: AnnotationReader) -> dict[int, str]:
    for folder in (reading.root, reading.root / "labels", *sorted(reading.root.glob("*/labels"))):
        for name in NAME_FILES:
            if (folder / name).is_file():
                lines = read_text(folder / name, 1 << 20).splitlines()
                return {place: line.strip() for place, line in enumerate(line for line in lines if line.strip())}
    return {}


def _declared(reading: AnnotationReader, file: Path, content: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The pictures that ``data.yaml`` declares, each with its split."""
    entries = {}
    for key in ("train", "val", "valid", "validation", "test"):
        value = content.get(key)
        if value and SPLIT_NAMES[key] not in entries:
            entries[SPLIT_NAMES[key]] = [text(one, key) for one in (value if isinstance(value, list) else [value])]
    if not entries:
        entries = {"all": ["images"]}
    elif entries.get("train") == entries.get("val"):
        entries = {"all": entries.pop("train"), **{k: v for k, v in entries.items() if k == "test"}}
    base = _below(reading.root, file.parent, str(content.get("path") or ".")) or file.parent
    for split, places in entries.items():
        found = False
        for place in places:
            path = _below(reading.root, base, place) or _below(reading.root, file.parent, place)
            if path is not None:
                found = True
                yield from ((split, picture) for picture in _pictures(reading, path))
        if not found:
            reading.warn(f"{file}: {split} is {', '.join(places)}, which is not there: left out")


def _below(root: Path, base: Path, place: str) -> Path | None:
    """What ``place`` means, if it exists below the root; the ends of strange absolute paths are tried too."""
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".")]
    is_absolute = place.startswith(("/", "\\")) or place[1:2] == ":"
    ways = [] if is_absolute else [[*base.relative_to(root).parts, *parts]]
    while parts and parts[0] == "..":
        parts = parts[1:]
    ways += [parts[start:] for start in range(len(parts))] if is_absolute else [parts]
    for way in ways:
        kept: list[str] = []
        for part in way:
            if part != "..":
                kept.append(part)
            elif kept:
                kept.pop()
            else:
                break
        else:
            path = root.joinpath(*kept)
            if path.exists():
                return path
    return None


def _pictures(reading: AnnotationReader, path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from reading.pictures.within(path)
        for folder in sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")):
            yield from _pictures(reading, folder)
        return
    for place, line in enumerate(read_text(path).splitlines()):
        if line.strip():
            with reading.at(path, f"line {place + 1}"):
                yield reading.pictures.find(line.strip(), path.parent)


def _label_file(reading: AnnotationReader, picture: Path) -> Path | None:
    parts = list(picture.relative_to(reading.root).parts)
    ways = [parts]
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        ways.insert(0, [*parts[:place], "labels", *parts[place + 1 :]])
    for way in ways:
        file = reading.root.joinpath(*way).with_suffix(".txt")
        if reading.pictures.has(file):
            return file
    return None


def _lines(file: Path) -> list[str]:
    return read_text(file, LARGEST_OF_ONE).splitlines()


def _numbers(reading: AnnotationReader, file: Path) -> Iterator[int]:
    with reading.at(file):
        for line in _lines(file):
            if line.strip() and line.split()[0].isdecimal() and len(line.split()[0]) <= 5:
                yield int(line.split()[0])


def _read_picture(reading: AnnotationReader, split: str, picture: Path, file: Path | None) -> None:
    if file is None:
        reading.add(split, AnnotatedImage(picture, 0, 0, None))
        return
    with reading.at(file):
        lines = _lines(file)
        reading.limit(len(lines))
        width, height = reading.pictures.size(picture)
        objects: list[Annotation] = []
        for place, line in enumerate(lines):
            if values := line.split():
                with reading.at(file, f"line {place + 1}"):
                    objects.append(_object(reading, values, width, height))
        if objects and not width:
            reading.count("pictures are missing or unreadable: their labels, in fractions of them, are left out")
            reading.add(split, AnnotatedImage(picture, 0, 0, None, file))
        else:
            reading.add(split, AnnotatedImage(picture, width, height, tuple(objects), file))


def _object(reading: AnnotationReader, values: list[str], width: int, height: int) -> Annotation:
    label = whole(values[0], "the class")
    if not 0 <= label < len(reading.classes):
        raise InvalidAnnotation(f"class {label} is none of the {len(reading.classes)} classes")
    numbers = [number(value) for value in values[1:]]
    if len(numbers) in (4, 5):
        x, y, w, h = numbers[0] * width, numbers[1] * height, numbers[2] * width, numbers[3] * height
        score = numbers[4] if len(numbers) == 5 else None
        return Annotation(label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), score=score)
    if len(numbers) < 6 or len(numbers) % 2:
        raise InvalidAnnotation(
            f"has {len(numbers)} numbers after the class: neither a box (4) nor an outline (6, 8, …)"
        )
    outline = tuple(value * (height if place % 2 else width) for place, value in enumerate(numbers))
    return Annotation(label, around([outline]), (outline,))


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``data.yaml``, ``images/SPLIT/`` and ``labels/SPLIT/``; if unsplit, ``train`` and ``val`` are the same."""
    import yaml

    outlines = any(thing.polygons for image in dataset.images() for thing in image.objects or ())
    for split, images in dataset.splits.items():
        for image in images:
            place = target.place(image, f"images/{split_dir(split)}")
            if image.objects is None:
                continue
            if not (image.width and image.height) and image.objects:
                target.lost("pictures of unknown size: their labels cannot be written in fractions")
                continue
            lines = [_line(thing, image, outlines, target) for thing in image.objects]
            target.write(Path("labels") / split_dir(split) / f"{place.stem}.txt", "".join(lines))
    folders = {split: f"images/{split}" for split in dataset.splits if split_dir(split)}
    if "all" in dataset.splits:
        folders = {"train": "images", "val": "images"}
    content = {"path": ".", **folders, "names": dict(enumerate(dataset.classes))}
    target.write("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _line(thing: Annotation, image: AnnotatedImage, outlines: bool, target: DatasetWriter) -> str:
    ring: Polygon | None = None
    if outlines and thing.score is not None:
        target.lost("scores")
    if thing.polygons:
        ring = joined((*thing.polygons, *thing.holes))
    elif outlines:  # readers take a file with one outline for a file of outlines
        target.lost("boxes stand among outlines: written as outlines of four corners")
        ring = corners(*thing.box)
    if ring is not None:
        values = [value / (image.height if place % 2 else image.width) for place, value in enumerate(ring)]
    else:
        x1, y1, x2, y2 = thing.box
        values = [(x1 + x2) / 2 / image.width, (y1 + y2) / 2 / image.height]
        values += [(x2 - x1) / image.width, (y2 - y1) / image.height]
        if thing.score is not None:
            values.append(thing.score)
    return " ".join([str(thing.label), *(f"{value:.10g}" for value in values)]) + "\n"
