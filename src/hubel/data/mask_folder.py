"""Data sets of images with masks: which mask is of which image, and in which split they are.

Masks are in a tree of folders beside that of the images: ``SPLIT/images/a.jpg`` and ``SPLIT/masks/a.png``,
``images/SPLIT/a.jpg`` and ``masks/SPLIT/a.png``, also without splits, and with more folders inside, which are the same
in both. A mask is called as its image, or so with ``_mask``, ``_label`` or the like at the end, and is lossless (PNG,
BMP, TIFF, GIF). An image that has no mask, or of which several may be, is left out, and so is one that shares its mask
with another; a warning counts them.

The value of a mask's pixel is the index of its class. The names of the classes are the lines of ``classes.txt``,
``INDEX NAME`` or ``NAME``; a name that ends in "(ignore)" is that of pixels that do not count. 255 never counts. Where
all lines have a colour, ``NAME RED GREEN BLUE`` or ``RED GREEN BLUE NAME``, masks may be images of these colours;
CamVid's ``label_colors.txt``, CVAT's ``labelmap.txt`` and ``class_dict.csv`` may take the place of ``classes.txt``.

Without such a file, the masks in Pascal VOC's ``SegmentationClass``, divided by ``ImageSets/Segmentation``, and in
Cityscapes' ``gtFine`` have their classes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hubel.bounded import BoundError, read_text
from hubel.console import count_of
from hubel.data.file_listing import IMAGE_SUFFIXES, composed, files_below, listing
from hubel.data.image_io import read_size
from hubel.data.mask_classes import CLASS_FILES, MaskClasses, cityscapes_classes, read_mask_classes, voc_classes
from hubel.data.samples import ImageDataset, Sample
from hubel.data.split_names import SPLIT_NAMES, split_folders, split_of
from hubel.errors import DataError, ImageError

_LAYOUT = (
    "pass images/a.jpg and masks/a.png, both in train/ and val/ if it is split, and classes.txt beside them; or "
    "labels with outlines, such as a COCO file"
)
_IMAGE_TREES = frozenset(
    {"images", "image", "imgs", "img", "jpegimages", "pngimages", "photos", "pictures", "leftimg8bit"}
)
MASK_TREES = frozenset({"masks", "mask", "gtfine", "gtcoarse"})
"""Names of folders whose images are masks."""

VOC_TREES = frozenset({"segmentationclass", "segmentationclassaug"})
"""Those of Pascal VOC, which lie beside labels of boxes."""

OTHER_TREES = frozenset(
    {"labels", "label", "annotations", "annotation", "segmentation", "segmentations", "gt", "groundtruth"}
    | {"ground_truth"}
)
"""Names that other labels have too: their images are masks where somebody says that this is a data set of masks."""

OBJECT_TREES = frozenset({"segmentationobject"})
"""Those of Pascal VOC's masks that tell objects apart, not classes."""

_LOSSLESS = frozenset({".png", ".bmp", ".dib", ".tif", ".tiff", ".gif"})
_SUFFIX = re.compile(r"[ _.\-](?:masks?|labels?|labelids|seg|segmentation|gt|annotation|l)$", re.IGNORECASE)
_CITYSCAPES = re.compile(r"(?P<image>.+)_gt(?:Fine|Coarse)_(?P<kind>[A-Za-z]+)")
_CITYSCAPES_IMAGE = "_leftImg8bit"
_IDS, _TRAIN_IDS = "labelIds", "labelTrainIds"
SPLIT_ORDER = ("train", "val", "test")

Key = tuple[str, ...]


@dataclass
class MaskTrees:
    """Images and masks by the place of their folders in both trees."""

    images: dict[Key, list[Path]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[Key, list[Path]] = field(default_factory=lambda: defaultdict(list))
    lossy: list[Path] = field(default_factory=list)  # masks in a format that changes values


def is_mask_folder(root: Path, mask_names: frozenset[str] = MASK_TREES) -> bool:
    """True if a folder has an image with a mask, in a folder that has one of these names."""
    if not root.is_dir():
        return False
    trees = find_trees(root, mask_names)
    return any(
        image_stem(image) in by_stem
        for key, by_stem in masks_by_stem(trees).items()
        for image in trees.images.get(key, ())
    )


def read_mask_folder(root: Path) -> ImageDataset:
    """Find the images, their masks and the classes; no image is decoded.

    Raises :class:`DataError` if there are none, or classes.txt is missing or wrong.
    """
    root = Path(root)
    trees = MaskTrees()
    for names in (MASK_TREES, MASK_TREES | VOC_TREES, MASK_TREES | VOC_TREES | OTHER_TREES):
        trees = find_trees(root, names)
        if trees.masks or trees.lossy:
            break
    warnings: list[str] = []
    by_stem = masks_by_stem(trees)
    found: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for key in sorted(trees.images):
        if pairs := pair_images(root, trees.images[key], by_stem.get(key, {}), warnings):
            found[split_of_key(key)] += pairs
    if not found:
        if trees.lossy:
            message = f"{trees.lossy[0]} is a JPEG, as all masks of {root}: it changes values near edges"
            raise DataError(message, "export the masks again as PNG")
        raise DataError(f"{root} has no images with masks", _LAYOUT)
    if set(found) == {"all"}:
        found = by_image_sets(found["all"], warnings)
    if len(found) > 1 and (others := found.pop("all", [])):
        warnings.append(
            f"{root}: {count_of(len(others), 'image', 'are')} beside the splits: left out, the first {others[0][0]}"
        )
    named = read_mask_classes(root)
    classes = named or _published_classes(root, [mask for pairs in found.values() for _, mask in pairs])
    splits = {
        split: tuple(
            _sample(image, mask, classes if named else _of_mask(classes, mask)) for image, mask in found[split]
        )
        for split in (*SPLIT_ORDER, "all")
        if split in found
    }
    return ImageDataset(root, classes.names, splits, tuple(warnings))


def _sample(image: Path, mask: Path, classes: MaskClasses) -> Sample:
    try:
        width, height = read_size(image)
    except ImageError:  # the check reports it
        width = height = 0
    return Sample(image, width=width, height=height, class_map=classes.file(mask), stratum=0)


def _published_classes(root: Path, masks: Iterable[Path]) -> MaskClasses:
    """The classes of masks that have none of their own: Cityscapes' or Pascal VOC's, by the masks' names."""
    if all(_CITYSCAPES.fullmatch(mask.stem) for mask in masks):
        return cityscapes_classes(train_ids=True)
    if all(VOC_TREES & {folder.name.casefold() for folder in mask.parents} for mask in masks):
        return voc_classes()
    message = f"{root} has no {CLASS_FILES[0]}: the classes have no names"
    raise DataError(message, "write one name per line, in order; if values number objects, pass --task instances")


def _of_mask(classes: MaskClasses, mask: Path) -> MaskClasses:
    """What the values of a mask mean: in Cityscapes there are masks of two kinds."""
    return cityscapes_classes(train_ids=False) if _kind(mask) == _IDS else classes


def _kind(mask: Path) -> str:
    """What the values of one of Cityscapes' masks are; empty for others."""
    match = _CITYSCAPES.fullmatch(mask.stem)
    return match["kind"] if match else ""


def by_image_sets(pairs: list[tuple[Path, Path]], warnings: list[str]) -> dict[str, list[tuple[Path, Path]]]:
    """Images by the lists of Pascal VOC, ``ImageSets/Segmentation/train.txt``; in one split where there are none."""
    stems: dict[Path, dict[str, set[str]]] = {}
    found: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    unlisted: list[str] = []
    for image, mask in pairs:
        folder = mask.parent.parent / "ImageSets" / "Segmentation"
        if folder not in stems:
            stems[folder] = _image_sets(folder)
        lists = stems[folder]
        split = next((split for split, names in lists.items() if image.stem in names), None)
        if split is None and lists:
            unlisted.append(image.name)
        else:
            found[split or "all"].append((image, mask))
    if unlisted:
        are = count_of(len(unlisted), "image", "are")
        warnings.append(f"{are} in no list of ImageSets/Segmentation: left out: {listing(unlisted)}")
    return found


def _image_sets(folder: Path) -> dict[str, set[str]]:
    """The stems that the lists of a folder name, by split; empty unless there are lists for training and another."""
    lists: dict[str, set[str]] = {}
    for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
        if (split := split_of(file.stem)) is not None:
            try:
                lists[split] = set(read_text(file).split())
            except (OSError, BoundError, UnicodeError) as error:
                raise DataError(f"{file} cannot be read: {error}", "write the name of an image per line") from error
    return lists if "train" in lists and len(lists) > 1 else {}


def find_trees(root: Path, mask_names: frozenset[str], kinds: Collection[str] = ("", _IDS, _TRAIN_IDS)) -> MaskTrees:
    """All images below a folder, by tree; of Cityscapes' masks those of some kinds."""
    trees = MaskTrees()
    paths = [
        path
        for path in files_below(root)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.parent.name.casefold() not in OBJECT_TREES - mask_names
    ]
    inner = {folder for path in paths for folder in path.relative_to(root).parents} - {Path()}
    named = split_folders(inner)
    places: dict[Path, tuple[bool, Key]] = {}
    for path in paths:
        suffix = path.suffix.lower()
        if path.parent not in places:
            places[path.parent] = _place(path.parent.relative_to(root), mask_names, named)
        is_mask, key = places[path.parent]
        if not is_mask:
            trees.images[key].append(path)
        elif _kind(path) not in kinds:
            continue
        elif suffix in _LOSSLESS:
            trees.masks[key].append(path)
        else:
            trees.lossy.append(path)
    return trees


def _place(folder: Path, mask_names: frozenset[str], named: Mapping[Path, str]) -> tuple[bool, Key]:
    """Whether a folder is in a tree of masks, and its place there: folders without the tree's, a split by its name.

    ``named`` are folders that are splits beside others: ``birds_train`` and ``birds_test``.
    """
    is_mask: bool | None = None
    key: list[str] = []
    for each in [*reversed(folder.parents[:-1]), folder] if folder.parts else []:
        name = composed(each.name)
        words = re.split(r"[_\-. ]", name.casefold().removesuffix("_trainvaltest"))  # as Cityscapes' archives unpack
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


def split_of_key(key: Key) -> str:
    """The split that a place in the trees is of; ``"all"`` if it is of none."""
    return next((part for part in key if part in SPLIT_ORDER), "all")


def masks_by_stem(trees: MaskTrees) -> dict[Key, dict[str, list[Path]]]:
    """The masks by place and by the stem of the image that they are of."""
    found: dict[Key, dict[str, list[Path]]] = {}
    for key, masks in trees.masks.items():
        stems = {image_stem(image) for image in trees.images.get(key, ())}
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


def image_stem(image: Path) -> str:
    """What an image's mask is called, without a suffix."""
    return _stem(image.stem.removesuffix(_CITYSCAPES_IMAGE))


def _shorter(stem: str) -> Iterator[str]:
    if match := _CITYSCAPES.fullmatch(stem):
        yield _stem(match["image"])
    short = _SUFFIX.sub("", stem)
    yield _stem(short)
    for each in dict.fromkeys((stem, short)):
        if Path(each).suffix.lower() in IMAGE_SUFFIXES:
            yield _stem(Path(each).stem)


def pair_images(
    root: Path, images: list[Path], masks: dict[str, list[Path]], warnings: list[str]
) -> list[tuple[Path, Path]]:
    """The images of one folder of a tree that have one mask, which no other image has, with it."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image_stem(image)].append(image)
    pairs: list[tuple[Path, Path]] = []
    left_out: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image in images:
        stem = image_stem(image)
        found = masks.get(stem, [])
        exact = [mask for mask in found if _stem(mask.stem) == stem or _kind(mask) == _TRAIN_IDS]
        chosen = exact if len(exact) == 1 else found
        if not chosen:
            left_out["have", "no mask"].append(image.name)
        elif len(chosen) > 1:
            left_out["have", "several masks"].append(f"{image.name} ({listing([mask.name for mask in chosen], 2)})")
        elif len(by_stem[stem]) > 1:
            left_out["share", "the mask of another image"].append(image.name)
        else:
            pairs.append((image, chosen[0]))
    # Images without any mask are counted where there are masks: other folders may hold something else.
    if masks or pairs:
        folder = images[0].parent
        for (verb, what), names in left_out.items():
            warnings.append(f"{folder}: {count_of(len(names), 'image', verb)} {what}: left out: {listing(names)}")
    elif left_out:
        count = sum(map(len, left_out.values()))
        warnings.append(f"{images[0].parent.relative_to(root)}: {count_of(count, 'image', 'have')} no mask: left out")
    return pairs
