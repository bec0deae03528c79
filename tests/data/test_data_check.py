"""`hubel.data.checks`: every planted mistake is found, nothing else is, and what can be fixed is."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, read_annotations, write_annotations
from hubel.data.checks import KINDS, apply_fixes, check_data
from hubel.data.checks.boxes import duplicate_boxes
from hubel.data.checks.classes import class_findings, similar_names
from hubel.data.checks.images import Fingerprint, fingerprint, similar_pairs
from hubel.data.checks.statistics import CELLS, coverage, statistics
from label_errors import HEIGHT, WIDTH, Planted, edit, scene

Expected = tuple[str, str | None, int | None]


def _found(folder: Path, format: str | None = None) -> list[Expected]:
    def name(path: Path | None) -> str | None:
        return path.name if path else None

    findings = check_data(folder, format).findings
    return [(each.kind, name(each.image or each.label_file), each.object) for each in findings]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "set")


@pytest.mark.parametrize("format", ["voc", "coco", "yolo", "labelme"])
def test_a_sound_set_is_sound(planted: Planted, format: str) -> None:
    check = check_data(planted.write(format))
    assert check.findings == ()
    assert sum(map(len, check.dataset.splits.values())) == 9


def _unlabelled(planted: Planted) -> None:
    planted.images["train1.png"] = replace(planted.images["train1.png"], objects=None)


def _empty(planted: Planted) -> None:
    planted.images["train1.png"] = replace(planted.images["train1.png"], objects=())


def _truncate(folder: Path) -> None:
    file = folder / "JPEGImages" / "train1.png"
    file.write_bytes(file.read_bytes()[:2000])


def _resized(planted: Planted) -> None:
    scene(1, WIDTH // 2, HEIGHT // 2).save(planted.root / "train1.png")


def _stored_size(planted: Planted) -> None:
    """A photograph held upright, labelled as the camera stored it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(1).save(planted.root / "train1.png", exif=exif)


def _same(name: str) -> Callable[[Planted], None]:
    def plant(planted: Planted) -> None:
        shutil.copyfile(planted.root / "train1.png", planted.root / name)

    return plant


def _near(name: str) -> Callable[[Planted], None]:
    def plant(planted: Planted) -> None:
        copy = ImageEnhance.Brightness(Image.open(planted.root / "train1.png")).enhance(1.1)
        copy.save(planted.root / name)

    return plant


def _counted_from_zero(planted: Planted) -> None:
    planted.put("train1.png", (-1, 80, 20, 100))
    planted.put("train2.png", (140, 80, WIDTH, 100))


def _spelling(planted: Planted) -> None:
    planted.classes = ("bus", "car", "Car")
    for name in ("train1.png", "val7.png"):
        planted.put(name, (5, 5, 15, 15), label=2)


def _likeness(planted: Planted) -> None:
    planted.classes = ("bus", "car", "buses")
    planted.put("train1.png", (5, 5, 15, 15), label=2)
    for number in range(6):
        planted.put(f"train{number}.png", (110, 80, 120, 90))


def _afterwards(*changes: Callable[[Path], None]) -> Callable[[Planted], None]:
    return lambda planted: planted.afterwards.extend(changes)


def _outline(box: tuple[float, ...], *polygons: tuple[float, ...]) -> Callable[[Planted], None]:
    def plant(planted: Planted) -> None:
        image = planted.images["train1.png"]
        obj = Annotation(0, (box[0], box[1], box[2], box[3]), polygons=polygons)
        planted.images["train1.png"] = replace(image, objects=(*(image.objects or ()), obj))

    return plant


def _boxes(*boxes: tuple[float, float, float, float], label: int = 0) -> Callable[[Planted], None]:
    return lambda planted: planted.put("train1.png", *boxes, label=label)


_XML = "Annotations/train1.xml"
_FRACTIONS = _afterwards(
    edit(_XML, "<xmin>21</xmin>", "<xmin>0.2</xmin>"),
    edit(_XML, "<ymin>31</ymin>", "<ymin>0.3</ymin>"),
    edit(_XML, "<xmax>60</xmax>", "<xmax>0.6</xmax>"),
    edit(_XML, "<ymax>70</ymax>", "<ymax>0.7</ymax>"),
)
_BOXES_AS_SIZES = ((80.0, 60.0, 40.0, 30.0), (100.0, 20.0, 50.0, 45.0))

MISTAKES: dict[str, tuple[str, Callable[[Planted], None], list[Expected]]] = {
    "empty is not unlabelled": ("voc", _empty, []),
    "unlabelled": ("voc", _unlabelled, [("unlabelled", "train1.png", None)]),
    "unlabelled yolo": ("yolo", _unlabelled, [("unlabelled", "train1.png", None)]),
    "missing": (
        "voc", _afterwards(lambda folder: (folder / "JPEGImages/train1.png").unlink()),
        [("missing", "train1.png", None)],
    ),
    "missing yolo": (
        "yolo", _afterwards(lambda folder: (folder / "images/train/train1.png").unlink()),
        [("missing", "train1.txt", None)],
    ),
    "unreadable": ("voc", _afterwards(_truncate), [("unreadable", "train1.png", None)]),
    "not a number": (
        "voc", _afterwards(edit(_XML, "<xmin>21</xmin>", "<xmin>nan</xmin>")), [("label-fault", "train1.xml", None)],
    ),
    "broken file": (
        "voc", _afterwards(edit(_XML, "</annotation>", "")), [("label-fault", "train1.xml", None)],
    ),
    "unknown class": (
        "yolo", _afterwards(edit("labels/train/train1.txt", "1 0.5", "7 0.5")), [("unknown-class", "train1.txt", None)],
    ),
    "no width": ("voc", _boxes((30, 80, 30, 90)), [("degenerate", "train1.png", 4)]),
    "inside out": ("voc", _boxes((40, 80, 30, 90)), [("degenerate", "train1.png", 4)]),
    "outside": ("voc", _boxes((170, 10, 190, 30)), [("outside", "train1.png", 4)]),
    "outline outside": (
        "coco", _outline((70, 5, 90, 25), (170, 5, 190, 5, 190, 25)), [("outline-outside", "train1.png", 4)],
    ),
    "a line": ("coco", _outline((70, 5, 90, 25), (70, 5, 90, 25, 80, 15)), [("outline-empty", "train1.png", 4)]),
    "outline elsewhere": (
        "coco", _outline((70, 5, 90, 25), (85, 5, 110, 5, 110, 25)), [("outline-apart", "train1.png", 4)],
    ),
    "outline in its box": ("coco", _outline((70, 5, 90, 25), (70, 5, 90, 5, 90, 25, 70, 15)), []),
    "partly outside": ("coco", _boxes((140, 90, 170, 110)), [("partly-outside", "train1.png", 4)]),
    "a pixel outside is rounding": ("coco", _boxes((140, 90, 161, 110)), []),
    "twice": ("voc", _boxes((20, 30, 60, 70)), [("duplicate", "train1.png", 4)]),
    "nearly twice": ("coco", _boxes((20.5, 30, 60, 70)), [("duplicate", "train1.png", 4)]),
    "over another": ("coco", _boxes((20, 30, 57, 70)), []),
    "two classes": ("voc", _boxes((20, 30, 60, 70), label=1), [("contradiction", "train1.png", 4)]),
    "tiny": ("voc", _boxes((5, 5, 6, 25)), [("tiny", "train1.png", 4)]),
    "whole": ("voc", _boxes((0, 0, WIDTH, HEIGHT)), [("whole-picture", "train1.png", 4)]),
    "spelling": ("voc", _spelling, [("class-spelling", None, None)]),
    "plural": ("voc", _likeness, [("class-likeness", None, None), ("class-absent", None, None)]),
    "same image": ("voc", _same("train2.png"), [("same", "train1.png", None)]),
    "same image elsewhere": ("voc", _same("val7.png"), [("same-elsewhere", "train1.png", None)]),
    "near image": ("voc", _near("train2.png"), [("near", "train1.png", None)]),
    "near image elsewhere": ("voc", _near("val7.png"), [("near-elsewhere", "train1.png", None)]),
    "unrotated": ("voc", _stored_size, [("unrotated", "train1.png", None)]),
    "unrotated coco": ("coco", _stored_size, [("unrotated", "train1.png", None)]),
    "another size": ("voc", _resized, [("size", "train1.png", None)]),
    "fractions": ("voc", _FRACTIONS, [("fractions", "train1.png", 1)]),
    "sizes": ("voc", lambda p: p.only("train1.png", *_BOXES_AS_SIZES), [("sizes", "train1.png", None)]),
    "counted from 0": (
        "voc",
        _counted_from_zero,
        [("counting", None, None)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found_and_nothing_else(planted: Planted, name: str) -> None:
    format, plant, expected = MISTAKES[name]
    plant(planted)
    assert _found(planted.write(format)) == expected


def test_corners_where_sizes_belong(planted: Planted) -> None:
    """COCO's bbox as x1, y1, x2, y2; YOLO's rows as corners, and in pixels."""
    coco = planted.write("coco")
    for file in coco.glob("annotations/*.json"):
        content = json.loads(file.read_text())
        for row in content["annotations"]:
            x, y, w, h = row["bbox"]
            row["bbox"] = [x, y, x + w, y + h]
        file.write_text(json.dumps(content))
    assert Counter(kind for kind, *_ in _found(coco)) == {"corners": 9}
    yolo = planted.write("yolo")
    corners = [f"{label} {x1} {y1} {x2} {y2}\n" for label, (x1, y1, x2, y2) in (
        (0, (0.6, 0.6, 0.9, 0.9)), (1, (0.7, 0.4, 0.95, 0.7)))]  # fmt: skip
    (yolo / "labels/train/train1.txt").write_text("".join(corners))
    (yolo / "labels/train/train2.txt").write_text("0 40 50 40 40\n1 80 90 40 35\n")
    assert sorted(_found(yolo)) == [("corners", "train1.png", None), ("pixels", "train2.png", None)]


def test_every_kind_is_planted_somewhere() -> None:
    planted = {kind for *_, expected in MISTAKES.values() for kind, *_ in expected}
    elsewhere = {"corners", "pixels", "skew", "same-contradiction", "classes"}
    assert planted | elsewhere == set(KINDS)


def test_names_of_classes() -> None:
    assert list(similar_names({"raccoon": 200, "racoon": 3, "fox": 150})) == [("racoon", "raccoon")]
    assert list(similar_names({"traffic light": 90, "traffic_lights": 4})) == [("traffic_lights", "traffic light")]
    assert list(similar_names({"class10": 100, "class11": 2, "rbc": 900, "wbc": 20, "raccoon": 9, "racoon": 8})) == []


def test_uneven_classes() -> None:
    objects = (*(Annotation(0, (0, 0, 9, 9)),) * 100, Annotation(1, (0, 0, 9, 9)))
    image = AnnotatedImage(Path("a.png"), 20, 20, objects)
    assert [each.kind for each in class_findings(AnnotatedDataset(Path(), ("a", "b"), {"all": (image,)}))] == ["skew"]
    fewer = replace(image, objects=objects[1:])
    assert list(class_findings(AnnotatedDataset(Path(), ("a", "b"), {"all": (fewer,)}))) == []


def test_doubled_boxes_are_those_of_torchvisions_iou() -> None:
    import torch
    import torchvision

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(5, 60, (300, 2))), 1)
    boxes[150:] = boxes[:150] + rng.normal(0, 0.4, (150, 4))
    objects = [Annotation(0, tuple(map(float, box))) for box in boxes]
    iou = torchvision.ops.box_iou(*(torch.from_numpy(boxes),) * 2).numpy()
    expected = {second: iou[second, :second].max() for second in range(1, 300) if iou[second, :second].max() > 0.95}
    found = {second: share for second, _, share in duplicate_boxes(objects)}
    assert len(expected) > 50
    assert found == pytest.approx(expected)


def test_the_hash_is_the_signs_of_scipys_cosine_transform() -> None:
    image = scene(5, 320, 320).convert("L")
    small = np.asarray(image.reduce(10)).astype(float)
    frequencies = dctn(small, norm="ortho")
    order = sorted(((y, x) for y in range(32) for x in range(32)), key=lambda at: (sum(at), at))[1:65]
    expected = "".join("1" if frequencies[at] > 0 else "0" for at in order)
    made = fingerprint(image.convert("RGB"))
    assert made is not None
    assert (made.bits ^ int(expected, 2)).bit_count() <= 2  # weak frequencies may be rounded over zero
    assert fingerprint(Image.new("RGB", (50, 50), "grey")) is None


def _pairs(prints: list[Fingerprint]) -> dict[tuple[int, int], int]:
    """Bits that differ, by pair."""
    every = (zip(*(values.tolist() for values in some), strict=True) for some in similar_pairs(prints))
    return {(first, second): bits for some in every for first, second, bits in some}


def test_close_pairs_are_those_that_numpy_and_python_count() -> None:
    rng = np.random.default_rng(0)
    prints = []
    for bits, grey in zip(rng.integers(0, 2**63, 6).tolist(), rng.integers(0, 256, (6, 1024)), strict=True):
        for _ in range(250):  # more than a block in all
            flipped = sum(1 << index for index in rng.choice(64, rng.integers(0, 9), replace=False).tolist())
            noisy = np.clip(grey + rng.normal(0, rng.uniform(10, 40), 1024), 0, 255).astype(np.uint8)
            prints.append(Fingerprint(bits ^ flipped, noisy.tobytes()))
    greys = np.array([list(each.grey) for each in prints])
    correlations = np.corrcoef(greys)
    alike = correlations >= 0.9
    assert 0.1 < alike[:250, :250].mean() < 0.9
    expected = {
        (one, two): differing
        for one in range(len(prints))
        for two in range(one + 1, len(prints))
        if alike[one, two] and (differing := (prints[one].bits ^ prints[two].bits).bit_count()) <= 10
    }
    found = _pairs(prints)
    assert len(expected) > 60_000
    # Theirs are of twice as many digits.
    assert all(abs(correlations[pair] - 0.9) < 1e-5 for pair in expected.keys() ^ found.keys())
    assert all(found[pair] == expected[pair] for pair in expected.keys() & found.keys())


@pytest.mark.data
def test_copies_are_found_among_photographs_and_nothing_else(data_folder: Path, tmp_path: Path) -> None:
    """Stored again worse, smaller, brighter, with more contrast, cropped a little."""
    files = sorted((data_folder / "coco128" / "images").glob("*.jpg"))[:60]
    prints = [fingerprint(Image.open(file).convert("RGB")) for file in files]
    assert list(similar_pairs([each for each in prints if each])) == []
    for at, file in enumerate(files[:12]):
        image = Image.open(file).convert("RGB")
        w, h = image.size
        copies = {
            "worse": image,
            "smaller": image.resize((w // 3, h // 3)),
            "brighter": ImageEnhance.Brightness(image).enhance(1.2),
            "contrast": ImageEnhance.Contrast(image).enhance(1.3),
            "squeezed": image.resize((300, 300)),
        }
        for name, copy in copies.items():
            copy.save(tmp_path / "copy.jpg", quality=40)
            print_ = fingerprint(Image.open(tmp_path / "copy.jpg"))
            assert print_ is not None
            assert _pairs([*(each for each in prints if each), print_]).keys() == {(at, len(prints))}, (file, name)


def _digests(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("format", ["voc", "coco"])
def test_a_fixed_copy_is_sound_and_the_original_untouched(planted: Planted, tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(0).save(planted.root / "train0.png", exif=exif)
    planted.put("train1.png", (140, 90, 170, 110), (30, 80, 30, 90), (20, 30, 60, 70))
    planted.classes = ("bus", "car", "Car")
    planted.put("val6.png", (5, 5, 15, 15), label=2)
    planted.put("train4.png", (5, 5, 15, 15), label=2)
    planted.put("train3.png", (170, 10, 190, 30))
    folder = planted.write(format)
    (gone,) = folder.rglob("train2.png")
    gone.unlink()
    (broken,) = folder.rglob("train5.png")
    broken.write_bytes(b"not an image")
    before = _digests(folder)
    repaired = apply_fixes(check_data(folder))
    assert [(each.kind, each.object) for each in repaired.remaining] == [("outside", 4)]
    assert len(repaired.changes) == 7
    write_annotations(repaired.dataset, format, tmp_path / "fixed")
    assert _digests(folder) == before
    assert _found(tmp_path / "fixed") == [("outside", "train3.png", 4)]
    again = {image.path.name: image for image in read_annotations(tmp_path / "fixed").images()}
    assert sorted(again) == [
        "train0.png",
        "train1.png",
        "train3.png",
        "train4.png",
        *(f"val{n}.png" for n in (6, 7, 8)),
    ]
    assert [obj.box for obj in again["train1.png"].objects or ()][3:] == [(140, 90, 160, 110)]
    # Rotated clockwise by a quarter, (x, y) of the stored image comes to (height - y, x).
    assert (again["train0.png"].objects or ())[0].box == (HEIGHT - 70, 20, HEIGHT - 30, 60)
    assert (again["train0.png"].width, again["train0.png"].height) == (HEIGHT, WIDTH)


@pytest.mark.data
@pytest.mark.parametrize("name", ["bccd", "raccoon", "coco128/boxes128.json"])
def test_real_sets_have_no_errors(data_folder: Path, name: str) -> None:
    check = check_data(data_folder / name)
    assert [each for each in check.findings if each.severity == "error"] == []


@pytest.mark.data
def test_the_copies_in_raccoon_are_found(data_folder: Path) -> None:
    """Seen by eye: three files twice, and three images stored again, one with a caption written on it."""
    pairs = [
        (each.kind, *sorted(path.stem.removeprefix("raccoon-") for path in (each.image, each.other) if path))
        for each in check_data(data_folder / "raccoon").findings
        if each.other
    ]
    assert sorted(pairs) == [
        ("near", "21", "45"), ("near", "50", "52"), ("near", "51", "85"),
        ("same", "120", "83"), ("same", "52", "74"), ("same", "65", "98"),
    ]  # fmt: skip


def test_class_folders(tmp_path: Path) -> None:
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        for name, more in (("cat", 0), ("dog", 100)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in numbers:
                scene(number + more).save(tmp_path / split / name / f"{number}.png")
    assert _found(tmp_path) == []
    shutil.copyfile(tmp_path / "train/cat/1.png", tmp_path / "train/dog/11.png")
    shutil.copyfile(tmp_path / "train/cat/2.png", tmp_path / "val/cat/12.png")
    scene(3).resize((320, 240)).save(tmp_path / "val/cat/13.jpg")
    (tmp_path / "train/dog/0.png").write_bytes(b"not an image")
    assert _found(tmp_path) == [
        ("unreadable", "0.png", None),
        ("same-elsewhere", "2.png", None),
        ("same-contradiction", "1.png", None),
        ("near-elsewhere", "3.png", None),
    ]
    shutil.rmtree(tmp_path / "train" / "dog")
    (tmp_path / "val" / "cat" / "13.jpg").unlink()
    (tmp_path / "val" / "cat" / "12.png").unlink()
    assert _found(tmp_path) == [("classes", None, None), ("skew", None, None)]


def test_statistics(planted: Planted) -> None:
    planted.images["val8.png"] = replace(planted.images["val8.png"], objects=())
    planted.images["val7.png"] = replace(planted.images["val7.png"], objects=None)
    numbers = statistics(planted.dataset())
    assert (numbers.splits["val"].images, numbers.splits["val"].unlabelled, numbers.splits["val"].empty) == (3, 1, 1)
    assert numbers.splits["train"].by_class == (12, 6)
    assert numbers.per_image == {3: 7, 0: 1}
    assert numbers.by_size == {"small": 0, "medium": 21, "large": 0}
    assert sorted(set(numbers.aspects.round(3))) == [1.0, 1.143]
    assert numbers.shapes_by_size is None


def test_statistics_of_outlines_have_their_own_areas(planted: Planted) -> None:
    triangle = (5.0, 5.0, 105.0, 5.0, 5.0, 105.0)  # 5000 pixels, and 10,000 of its box: medium, where the box is large
    _outline((5, 5, 105, 105), triangle)(planted)
    _outline((5, 5, 25, 25), (5, 5, 25, 5, 25, 25))(planted)
    numbers = statistics(planted.dataset())
    assert numbers.by_size["large"] == 1
    assert numbers.shapes_by_size == {"small": 1, "medium": 1, "large": 0}


def test_the_map_of_positions_counts_cells_one_by_one() -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 0.7, (40, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(0.02, 0.3, (40, 2))), 1)
    expected = np.zeros((CELLS, CELLS))
    for row in range(CELLS):
        for column in range(CELLS):
            x, y = (column + 0.5) / CELLS, (row + 0.5) / CELLS
            expected[row, column] = sum(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes) / 40
    assert coverage(boxes) == pytest.approx(expected)
