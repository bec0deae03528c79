"""A Darknet cfg as a model: ``yolov4.cfg``, or ``yolov4.cfg:yolov4.weights``. Works without torch.

Its weights are those after the colon, or a file of its own name beside it. The names of the classes are in a
``.names`` file beside it (of its own name, or the only one); else those of COCO for 80 classes of boxes, of Pascal VOC
for 20; else numbers.

A cfg that names a tree of classes (``tree=data/9k.tree``) is read with it, from that path as it is, from the cfg's
folder, or from the folder above. Names are then those of the ``.names`` file of the tree's own name, or of the tree
itself. The classes are those of its map (``map=data/coco9k.map``) if the ``.names`` file beside the cfg names as many.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubel.bounded import BoundError, read_text
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, WeightsError
from hubel.weights.catalog import class_names
from hubel.weights.darknet_cfg import HEADS, Section, cfg_text, classes_of, parse_cfg, task_of
from hubel.weights.darknet_layers import Shape, layers_of, net_size
from hubel.weights.darknet_tree import Tree, parse_map, parse_tree, read_lines, to_text

SUFFIX = ".cfg"
_ARCHITECTURES = {"yolo": "yolo_v3", "region": "yolo_v2", "detection": "yolo_v1"}  # by the kind of the boxes

_VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LARGEST_NAMES = 4 << 20

LETTERBOX_GREY = 127.5
"""Of the bars beside an image that Darknet fits into its network's input."""
_LETTERBOXED = ("yolo_v2", "yolo_9000", "yolo_v3")


@dataclass(frozen=True)
class CfgModel:
    """A cfg that was read.

    Attributes:
        weights: its file; None if there is none.
        architecture: name of the family that it belongs to, with it as the option ``cfg``.
        image: channels, height and width that it asks for.
        texts: those of the files that it names, as the options of the architecture: of its tree and map.
        files: all that was read, but for the weights.
        is_letterboxed: an image keeps its aspect.
    """

    path: Path
    text: str
    weights: Path | None
    architecture: str
    task: str
    image: Shape
    classes: list[str]
    texts: Mapping[str, str]
    files: tuple[Path, ...]
    is_letterboxed: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Those of the architecture."""
        return {"cfg": self.text, **self.texts}

    @property
    def preprocessing(self) -> Preprocessing:
        """Darknet's: colours from 0 to 1; the whole image, stretched, or between grey bars (:attr:`is_letterboxed`)."""
        channels, height, width = self.image
        zeros, full = (0.0,) * channels, (255.0,) * channels
        ready = Preprocessing(height, width, channels, mean=zeros, std=full, crop_fraction=1.0)
        if self.is_letterboxed:
            return replace(ready, resize="fit", fill=LETTERBOX_GREY)
        return replace(ready, resize="stretch")

    def require_weights(self) -> Path:
        """The file of its weights; raises ``WeightsError`` if there is none."""
        if self.weights is None:
            hint = f"pass it: --weights FILE, or {self.path}:FILE"
            raise WeightsError(f"{self.path} has no weights beside it, in {self.path.stem}.weights", hint)
        return self.weights


def is_cfg(reference: Path | str) -> bool:
    """True for a reference that names a cfg, whether or not it is there."""
    return split_reference(reference) is not None


def split_reference(reference: Path | str) -> tuple[Path, Path | None] | None:
    """The files of the cfg and of the weights that a reference names; None for any other model."""
    found = re.fullmatch(r"(.+\.cfg)(?::(.+))?", str(reference), re.IGNORECASE | re.DOTALL)
    if found is None or Path(str(reference)).is_dir():
        return None
    return Path(found[1]), None if found[2] is None else Path(found[2])


def with_weights(reference: str, weights: Path | str | None) -> str:
    """The reference of a cfg with weights.

    Raises:
        ModelError: weights are given for something else.
    """
    if weights is None:
        return reference
    files = split_reference(reference)
    if files is None:
        raise ModelError(f"{reference} is not a Darknet cfg, which --weights is for", "pass --model NAME:WEIGHTS")
    return f"{files[0]}:{weights}"


def read_cfg_model(reference: Path | str) -> CfgModel:
    """Read a cfg and what is beside it.

    Raises:
        ModelError: there is no such file, it cannot be built, or it is neither a detector nor a classifier.
        WeightsError: the weights do not exist.
    """
    files = split_reference(reference)
    if files is None:
        raise ModelError(f"{reference} is not a Darknet cfg", "pass a file whose name ends with .cfg")
    path, weights = files
    if weights is None:
        beside = path.with_suffix(".weights")
        weights = beside if beside.is_file() else None
    elif not weights.is_file():
        raise WeightsError(f"the weights file {weights} does not exist", "check the path")
    text = cfg_text(path)
    sections = parse_cfg(text, path.name)
    task, image = task_of(sections), net_size(sections[0])
    layers_of(sections, image)
    if image.channels not in (1, 3):
        raise ModelError(f"{path} is for images of {image.channels} channels", "use a cfg with channels=1 or 3")
    if (named := next((each for each in sections if "tree" in each.options), None)) is not None:
        names, texts, read = _with_tree(path, named, classes_of(sections))
    else:
        names, texts, read = _class_names(path, classes_of(sections), task), {}, ()
    family = _architecture(sections)
    letterboxed = _is_letterboxed(sections, family)
    return CfgModel(path, text, weights, family, task, image, names, texts, (path, *read), letterboxed)


def with_texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an architecture in which a tree or a map, given as the path of its file, is the text of it.

    Raises:
        ModelError: such a file cannot be read, or is not a tree or a map.
    """
    read = dict(options)
    for name in ("tree", "map"):
        path = options.get(name)
        if isinstance(path, str) and path and "\n" not in path:
            read[name] = read_lines(Path(path), f"a {name} of classes")
            if name == "tree":
                parse_tree(read[name], path)
            elif isinstance(read.get("tree"), str):
                parse_map(read[name], parse_tree(read["tree"]), path)
    return read


def _with_tree(path: Path, section: Section, count: int) -> tuple[list[str], dict[str, str], tuple[Path, ...]]:
    """Names of the classes of a cfg with a tree; its texts, by the names of options; the files that were read."""
    file = _named_file(path, section, "tree")
    text = read_lines(file, "a tree of classes")
    tree = parse_tree(text, str(file))
    if len(tree.names) != count:
        message = f"{file} has {len(tree.names):,} classes, and {path.name} has {count:,}"
        raise ModelError(message, "pass the cfg with the tree that it was made for")
    own = file.with_suffix(".names")
    beside = _names_file(path)
    if beside is not None:
        names = _lines(beside)
        if len(names) == count:
            return names, {"tree": _named(tree, dict(enumerate(names)))}, (file, beside)
        mapped = _map_of(path, section, tree, len(names))
        if mapped is None:
            raise _wrong_count(beside, len(names), path, count)
        map_file, of_map = mapped
        nodes = dict(zip(parse_map(of_map, tree), names, strict=True))
        return names, {"tree": _named(tree, nodes), "map": of_map}, (file, map_file, beside)
    if own.is_file() and len(names := _lines(own)) == count:
        return names, {"tree": _named(tree, dict(enumerate(names)))}, (file, own)
    return list(tree.names), {"tree": text}, (file,)


def _named(tree: Tree, names: Mapping[int, str]) -> str:
    """The text of a tree whose classes have these names, by their indices, as labels for training are called.

    Names of several classes (in ``9k.names`` a crane is a bird and a machine) stay those of the tree.
    """
    uses = Counter([*tree.names, *names.values()])
    found = (names.get(index, own) for index, own in enumerate(tree.names))
    named = [name if uses[name] == 1 else own for name, own in zip(found, tree.names, strict=True)]
    return to_text(named, tree.parents)


def _map_of(path: Path, section: Section, tree: Tree, count: int) -> tuple[Path, str] | None:
    """The file and the text of a cfg's map if it has so many classes."""
    if "map" not in section.options:
        return None
    file = _named_file(path, section, "map")
    text = read_lines(file, "a map of classes")
    return (file, text) if len(parse_map(text, tree, str(file))) == count else None


def _named_file(path: Path, section: Section, option: str) -> Path:
    """The file that an option of a cfg names; its name must end as the option is called, so that it is no other."""
    given = Path(section.options[option])
    if given.suffix != f".{option}":
        raise section.error(f"{option}={section.options[option]:.80} is not a file whose name ends with .{option}")
    tried = [given] if given.is_absolute() else [path.parent / given, path.parent.parent / given]
    tried.append(path.parent / given.name)
    found = next((each for each in tried if os.path.isfile(each)), None)  # noqa: PTH113 – Path's raises for long names
    if found is None:
        looked = ", ".join(dict.fromkeys(str(each) for each in tried))
        hint = f"put {given.name[-40:]} beside {path.name}"
        raise ModelError(f"{section.where}: there is no {option} of classes in any of {looked}", hint)
    return found


def _architecture(sections: Sequence[Section]) -> str:
    """The family of a cfg, whose option ``cfg`` takes its text."""
    kinds = [section for section in sections if section.kind in HEADS]
    if not kinds:
        return "darknet_classifier"
    if "tree" in kinds[0].options:
        return "yolo_9000"
    return "yolo_v4" if "iou_loss" in kinds[0].options else _ARCHITECTURES[kinds[0].kind]


def _is_letterboxed(sections: Sequence[Section], family: str) -> bool:
    """Whether the Darknet that a cfg is from keeps the aspect of images.

    Redmon's does so for ``[region]`` and ``[yolo]``. Bochkovskiy's, whose cfgs have losses of their own, stretches
    images, unless ``letter_box=1`` is in ``[net]``; that option decides in any cfg.
    """
    return sections[0].flag("letter_box", int(family in _LETTERBOXED))


def _class_names(path: Path, count: int, task: str) -> list[str]:
    found = _names_file(path)
    if found is not None:
        names = _lines(found)
        if len(names) != count:
            raise _wrong_count(found, len(names), path, count)
        return names
    if task == "detect" and count == 80:
        return class_names("coco80")
    if task == "detect" and count == 20:
        return list(_VOC)
    return [str(index) for index in range(count)]


def _lines(path: Path) -> list[str]:
    """The names in a ``.names`` file."""
    try:
        return [line.strip() for line in read_text(path, _LARGEST_NAMES).splitlines() if line.strip()]
    except (OSError, BoundError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "it has a name of a class in each line") from error


def _wrong_count(names: Path, named: int, cfg: Path, count: int) -> ModelError:
    message = f"{names} names {named:,} classes, and {cfg.name} has {count:,}"
    return ModelError(message, "correct one of them, or move the file away")


def _names_file(path: Path) -> Path | None:
    """The file of its own name, or the only one beside it."""
    own = path.with_suffix(".names")
    others = list(path.parent.glob("*.names"))
    return own if own.is_file() else others[0] if len(others) == 1 else None
