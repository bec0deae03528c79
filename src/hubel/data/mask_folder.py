"""Data sets of images with masks: which mask is of which image, what its pixels mean, and the names of the classes.

Masks are in a tree of folders beside that of the images: ``SPLIT/images/a.jpg`` and ``SPLIT/masks/a.png``,
``images/SPLIT/a.jpg`` and ``masks/SPLIT/a.png``, also without splits, and with more folders inside, which are the same
in both. A mask is called as its image, or so with ``_mask``, ``_label`` or the like at the end, and is lossless (PNG,
BMP, TIFF, GIF). An image that has no mask, or of which several may be, is left out, and so is one that shares its mask
with another; a warning counts them.

The value of a mask's pixel is the index of its class. The names of the classes are the lines of ``classes.txt``,
``INDEX NAME`` or ``NAME``; a name that ends in "(ignore)" is that of pixels that do not count. 255 never counts. Where
all lines have a colour, ``NAME RED GREEN BLUE`` or ``RED GREEN BLUE NAME``, masks may be images of these colours;
``label_colors.txt`` is such a file in place of ``classes.txt``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from hubel.bounded import BoundError, read_bytes
from hubel.data.annotations.encodings import decode_file
from hubel.data.file_listing import IMAGE_SUFFIXES, composed, files_below, listing
from hubel.data.image_io import read_size
from hubel.data.samples import ImageDataset, Sample
from hubel.data.split_names import SPLIT_NAMES, split_folders, split_of
from hubel.errors import DataError, ImageError

_LAYOUT = "pass images/a.jpg and masks/a.png, both in train/ and val/ if it is split, and classes.txt beside them"
_INDICES = "save masks of one channel, in which the value of a pixel is the index of its class"
_IMAGE_TREES = frozenset({"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"})
_MASK_TREES = frozenset({"masks", "mask"})
# Names that other labels have too: their images are masks where somebody says that this is a data set of masks.
_OTHER_MASK_TREES = frozenset(
    {"labels", "label", "annotations", "annotation", "segmentation", "segmentations", "segmentationclass", "gt"}
    | {"groundtruth", "ground_truth"}
)
_LOSSLESS = frozenset({".png", ".bmp", ".dib", ".tif", ".tiff", ".gif"})
_SUFFIX = re.compile(r"[ _.\-](?:masks?|labels?|labelids|seg|segmentation|gt|annotation)$", re.IGNORECASE)
_VOID = {255: 255, 65535: 255}  # values of pixels that never count, by the largest number of 8 and 16 bits
_ORDER = ("train", "val", "test")

_IGNORED = "(ignore)"
_NUMBERS = r"(?P<red>\d{1,3})[ ,\t]+(?P<green>\d{1,3})[ ,\t]+(?P<blue>\d{1,3})"
_COLOURED = (  # the colour after the name, or before it
    re.compile(rf"(?P<name>\S.*?)[ ,\t]+{_NUMBERS}"),
    re.compile(rf"{_NUMBERS}[ ,\t]+(?P<name>\S.*)"),
)

Colours = tuple[tuple[int, int, int], ...]
_Key = tuple[str, ...]


@dataclass
class _Trees:
    """Images and masks by the place of their folders in both trees."""

    images: dict[_Key, list[Path]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[_Key, list[Path]] = field(default_factory=lambda: defaultdict(list))
    lossy: list[Path] = field(default_factory=list)  # masks in a format that changes values


def is_mask_folder(root: Path) -> bool:
    """True if a folder has an image with a mask, in ``masks``."""
    if not root.is_dir():
        return False
    trees = _find_trees(root, _MASK_TREES)
    return any(
        _stem(image.stem) in by_stem for key, by_stem in _by_stem(trees).items() for image in trees.images.get(key, ())
    )


def read_mask_folder(root: Path) -> ImageDataset:
    """Find the images, their masks and the classes; no image is decoded.

    Raises :class:`DataError` if there are none, or classes.txt is missing or wrong.
    """
    root = Path(root)
    trees = _find_trees(root, _MASK_TREES)
    if not trees.masks and not trees.lossy:
        trees = _find_trees(root, _MASK_TREES | _OTHER_MASK_TREES)
    warnings: list[str] = []
    by_stem = _by_stem(trees)
    splits: dict[str, list[Sample]] = defaultdict(list)
    for key in sorted(trees.images):
        if samples := _with_masks(root, trees.images[key], by_stem.get(key, {}), warnings):
            splits[_split(key)] += samples
    if not splits:
        if trees.lossy:
            message = f"{trees.lossy[0]} is a JPEG, as all masks of {root}: it changes values near edges"
            raise DataError(message, "export the masks again as PNG")
        raise DataError(f"{root} has no images with masks", _LAYOUT)
    if len(splits) > 1 and (others := splits.pop("all", [])):
        warnings.append(f"{root}: {len(others)} images are beside the splits and left out, the first {others[0].path}")
    ordered = {split: tuple(splits[split]) for split in (*_ORDER, "all") if split in splits}
    names, colours = _read_classes(root)
    if colours is not None:
        ordered = {
            split: tuple(replace(sample, colours=colours) for sample in samples) for split, samples in ordered.items()
        }
    return ImageDataset(root, names, ordered, tuple(warnings))


def read_class_map(path: Path, colours: Colours | None = None) -> np.ndarray:
    """The class of every pixel, uint8 (h, w), of an image of indices, or of the ``colours`` of the classes.

    Grey images of any depth and palettes are read, and RGB where its channels are equal. Raises :class:`ImageError` for
    other colours, transparency, values above 255 (but the 65535 of pixels that do not count), and for what cannot be
    read.
    """
    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF", "GIF")) as image:
            return _indices(path, image) if colours is None else _of_colours(path, image, colours)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever damaged bytes lead to
        raise ImageError(f"{path} cannot be read: {error}", "copy or export the mask again") from error


def mask_fault(sample: Sample) -> ImageError | None:
    """Why the mask of an image cannot be used: it is unreadable, or of another size; ``None`` if nothing is wrong."""
    if sample.class_map is None:
        return None
    try:
        height, width = read_class_map(sample.class_map, sample.colours).shape
    except ImageError as error:
        return error
    if not sample.width or (width, height) == (sample.width, sample.height):
        return None
    message = f"{sample.class_map} is {width} × {height}, its image {sample.width} × {sample.height}"
    return ImageError(message, "export the mask again, in the size of its image")


def _indices(path: Path, image: Image.Image) -> np.ndarray:
    mode = image.mode
    # Pillow spreads the values of fewer bits over 0 to 255.
    step = {"L;2": 85, "L;4": 17}.get(_raw_mode(image), 1)
    values = np.asarray(image)
    if mode in ("L", "P", "1"):
        return values.astype(np.uint8) // step
    if mode in ("I", "I;16", "I;16B", "I;16L") and values.ndim == 2:
        for void, index in _VOID.items():
            values = np.where(values == void, index, values)
        if values.min(initial=0) < 0 or values.max(initial=0) > 255:
            message = f"{path} is not a mask of class indices: it has the value {values.max()}"
            raise ImageError(message, "number the classes from 0 to 254")
        return values.astype(np.uint8)
    if mode in ("LA", "PA", "RGB", "RGBA") and values.ndim == 3:
        count = 3 if mode.startswith("RGB") else 1
        if (values[..., count:] != 255).any():
            raise ImageError(f"{path} is not a mask of class indices: it is transparent in places", _INDICES)
        if (values[..., :count] == values[..., :1]).all():
            return values[..., 0].astype(np.uint8)
    raise ImageError(f"{path} is not a mask of class indices: its mode is {mode}, with colours", _INDICES)


def _of_colours(path: Path, image: Image.Image, colours: Colours) -> np.ndarray:
    """As :func:`_indices` for images of one channel; else each colour's index."""
    if image.mode not in ("RGB", "RGBA"):
        return _indices(path, image)
    values = np.asarray(image)
    if values.shape[2] == 4 and (values[..., 3] != 255).any():
        raise ImageError(f"{path} is transparent in places", "save it without an alpha channel")
    codes = _codes(values[..., :3])
    known = _codes(np.array(colours, np.uint8))
    order = np.argsort(known)
    found: np.ndarray = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    if (wrong := known[found] != codes).any():
        red, green, blue = values[..., :3][wrong][0].tolist()
        message = f"{path} has the colour {red} {green} {blue}, which no class has, in {int(wrong.sum()):,} pixels"
        raise ImageError(message, "add the colour to classes.txt, or save the mask without smoothing")
    return found.astype(np.uint8)


def _codes(colours: np.ndarray) -> np.ndarray:
    """Colours uint8 (…, 3) as numbers (…)."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    codes: np.ndarray = (red << 16) | (green << 8) | blue
    return codes


def _raw_mode(image: Image.Image) -> str:
    """How the values of a PNG are stored, such as ``L;4``; empty for other files."""
    tile = next(iter(getattr(image, "tile", ())), None)
    arguments = tile[3] if tile is not None and image.format == "PNG" else ""
    return arguments if isinstance(arguments, str) else str(arguments[0] if arguments else "")


def _find_trees(root: Path, mask_names: frozenset[str]) -> _Trees:
    """All images below a folder, by tree."""
    trees = _Trees()
    paths = [path for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    inner = {folder for path in paths for folder in path.relative_to(root).parents} - {Path()}
    named = split_folders(inner)
    places: dict[Path, tuple[bool, _Key]] = {}
    for path in paths:
        suffix = path.suffix.lower()
        if path.parent not in places:
            places[path.parent] = _place(path.parent.relative_to(root), mask_names, named)
        is_mask, key = places[path.parent]
        if not is_mask:
            trees.images[key].append(path)
        elif suffix in _LOSSLESS:
            trees.masks[key].append(path)
        else:
            trees.lossy.append(path)
    return trees


def _place(folder: Path, mask_names: frozenset[str], named: Mapping[Path, str]) -> tuple[bool, _Key]:
    """Whether a folder is in a tree of masks, and its place there: folders without the tree's, a split by its name.

    ``named`` are folders that are splits beside others: ``birds_train`` and ``birds_test``.
    """
    is_mask: bool | None = None
    key: list[str] = []
    for each in [*reversed(folder.parents[:-1]), folder] if folder.parts else []:
        name = composed(each.name)
        words = re.split(r"[_\-. ]", name.casefold())
        for tree, names in ((True, mask_names), (False, _IMAGE_TREES)):
            # Also train_masks and masks_train.
            at = next((index for index in (0, -1) if words[index] in names), None)
            rest = [] if at is None else [word for index, word in enumerate(words) if index != at % len(words)]
            if at is not None and is_mask in (None, tree) and (not rest or split_of(" ".join(rest))):
                is_mask = tree
                key += [split_of(" ".join(rest)) or ""] if rest else []
                break
        else:
            key.append(SPLIT_NAMES.get(name.casefold()) or named.get(each) or split_of(name) or name)
    return bool(is_mask), tuple(key)


def _split(key: _Key) -> str:
    return next((part for part in key if part in _ORDER), "all")


def _by_stem(trees: _Trees) -> dict[_Key, dict[str, list[Path]]]:
    """The masks by place and by the stem of the image that they are of."""
    found: dict[_Key, dict[str, list[Path]]] = {}
    for key, masks in trees.masks.items():
        stems = {_stem(image.stem) for image in trees.images.get(key, ())}
        folded = {stem.casefold(): stem for stem in stems}
        by_stem = found[key] = defaultdict(list)
        for mask in masks:
            own = _stem(mask.stem)
            if own not in stems:  # a.jpg.png, a_mask.png
                others = [own, *_shorter(mask.stem)]
                similar = (folded[stem.casefold()] for stem in others if stem.casefold() in folded)
                own = next((stem for stem in others if stem in stems), next(similar, own))
            by_stem[own].append(mask)
    return found


def _stem(stem: str) -> str:
    return composed(stem)


def _shorter(stem: str) -> Iterator[str]:
    short = _SUFFIX.sub("", stem)
    yield _stem(short)
    for each in dict.fromkeys((stem, short)):
        if Path(each).suffix.lower() in IMAGE_SUFFIXES:
            yield _stem(Path(each).stem)


def _with_masks(root: Path, images: list[Path], masks: dict[str, list[Path]], warnings: list[str]) -> list[Sample]:
    """Samples of the images of one folder of a tree that have one mask, which no other image has."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[_stem(image.stem)].append(image)
    samples: list[Sample] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for image in images:
        stem = _stem(image.stem)
        found = masks.get(stem, [])
        exact = [mask for mask in found if _stem(mask.stem) == stem]
        chosen = exact if len(exact) == 1 else found
        if not chosen:
            left_out["have no mask"].append(image.name)
        elif len(chosen) > 1:
            left_out["have several masks"].append(f"{image.name} ({listing([mask.name for mask in chosen], 2)})")
        elif len(by_stem[stem]) > 1:
            left_out["share their mask with another image"].append(image.name)
        else:
            try:
                width, height = read_size(image)
            except ImageError:  # the check reports it
                width = height = 0
            samples.append(Sample(image, width=width, height=height, class_map=chosen[0], stratum=0))
    # Images without any mask are counted where there are masks: other folders may hold something else.
    if masks or samples:
        folder = images[0].parent
        for why, names in left_out.items():
            warnings.append(f"{folder}: {len(names)} images {why} and are left out: {listing(names)}")
    elif left_out:
        count = sum(map(len, left_out.values()))
        warnings.append(f"{images[0].parent.relative_to(root)}: {count} images in it have no masks: left out")
    return samples


def _read_classes(root: Path) -> tuple[tuple[str, ...], Colours | None]:
    """The names of the classes, and the colours of these and of what does not count, if all have one."""
    file = root / "classes.txt"
    if not file.is_file() and (palette := root / "label_colors.txt").is_file():
        file = palette
    if not file.is_file():
        raise DataError(f"{root} has no {file.name}: the classes have no names", "write one name per line, in order")
    names: list[str] = []
    try:
        lines = decode_file(read_bytes(file))[0].splitlines()
    except (OSError, BoundError, UnicodeError) as error:
        raise DataError(f"{file} cannot be read: {error}", "write one name per line, in order") from error
    lines = [line.strip("\ufeff \t") for line in lines]
    lines, colours = _without_colours(file, lines)
    for number, line in enumerate(lines, 1):
        index, *rest = line.split(maxsplit=1)[:2] if line else ("",)
        if rest and index.isdecimal():
            if (index.lstrip("0") or "0") != str(len(names)):
                message = f"{file}, line {number}: index {index:.20} where {len(names)} is expected"
                raise DataError(message, "number the classes from 0, without gaps")
            line = rest[0]
        if line.endswith(_IGNORED):
            break  # it and what follows it are not classes
        if line:
            names.append(line)
    if not names:
        raise DataError(f"{file} names no class", "write one name per line, in order")
    return tuple(names), None if colours is None else tuple(colours)


def _without_colours(file: Path, lines: list[str]) -> tuple[list[str], list[tuple[int, int, int]] | None]:
    """Lines of names alone, those to be ignored last, and the colours, where all lines have one."""
    matches: list[re.Match[str]] = []
    for pattern in _COLOURED:
        found = [pattern.fullmatch(line) for line in lines if line]
        matches = matches or [match for match in found if match is not None and all(found)]
    if not matches:
        return lines, None
    matches.sort(key=lambda match: match["name"].endswith(_IGNORED))
    colours = [(int(match["red"]), int(match["green"]), int(match["blue"])) for match in matches]
    if wrong := next((colour for colour in colours if max(colour) > 255), None):
        raise DataError(f"{file} has the colour {wrong}", "use numbers from 0 to 255")
    if len(set(colours)) < len(colours):
        raise DataError(f"{file} has a colour twice", "give each class a colour of its own")
    return [match["name"] for match in matches], colours
