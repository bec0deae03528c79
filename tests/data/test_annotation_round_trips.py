"""Every format, written and read again: what it holds is there, what it does not is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hubel.data.annotations import AnnotatedDataset, Annotation, read_annotations, write_annotations
from hubel.data.annotations.registry import FORMAT_NAMES, get_format
from hubel.data.annotations.writer import LOSSES
from hubel.masks import bounding_box, decode, rasterize
from labelled_sets import HEIGHT, WIDTH, small_set

FLAGS = ("crowd", "ignore", "difficult", "truncated", "occluded")
FORMATS_WITHOUT_POLYGONS = {"dlib", "createml", "open-images", "box-csv"}
FIXED_ATTRIBUTES = {"dlib", "open-images"}


def _by_name(dataset: AnnotatedDataset) -> dict[str, tuple[str, tuple[Annotation, ...] | None]]:
    return {image.path.name: (split, image.objects) for split, images in dataset.splits.items() for image in images}


def _pixels(obj: Annotation) -> np.ndarray:
    return decode(obj.mask) if obj.mask else rasterize(obj.polygons, obj.holes, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_what_a_format_holds_comes_back(name: str, tmp_path: Path) -> None:
    source = small_set(tmp_path / "source")
    losses = write_annotations(source, name, tmp_path / "out")
    back = read_annotations(tmp_path / "out")
    assert (back.format, back.classes, back.warnings) == (name, source.classes, ())

    before, after = _by_name(source), _by_name(back)
    assert after.keys() == before.keys()
    supports = get_format(name).supports
    for file_name, (split, objects) in before.items():
        split_now, objects_now = after[file_name]
        assert split_now == split
        assert (objects_now is None) == (objects is None), file_name
        for obj, now in zip(objects or (), objects_now or (), strict=True):
            assert now.label == obj.label
            # dlib holds whole pixels, the others ten-thousandths.
            assert np.allclose(now.box, obj.box, atol=0.5 if name == "dlib" else 1e-3), file_name
            for flag in FLAGS:
                assert getattr(now, flag) == (getattr(obj, flag) and flag in supports), flag
            # YOLO's lines have room for a score where no outline is among them.
            assert now.score == (obj.score if "score" in supports and name != "yolo" else None)
            assert now.annotator == (obj.annotator if "annotator" in supports else None)
            kept = {"age": "3"} if name == "dlib" and obj.attributes else {}
            assert now.attributes == (
                obj.attributes if "attributes" in supports and name not in FIXED_ATTRIBUTES else kept
            )
            if obj.mask:
                assert bool(now.mask) == ("masks" in supports)
            if (obj.polygons and name not in FORMATS_WITHOUT_POLYGONS) or now.mask:
                assert np.array_equal(_pixels(now), _pixels(obj)), file_name
    sizes = {(image.width, image.height) for image in back.images() if image.objects is not None}
    assert sizes == {(WIDTH, HEIGHT)}

    reported = " ".join(losses)
    for key in ("masks", "crowd", "ignore", "difficult", "truncated", "occluded", "annotator", "score"):
        is_lost = key not in supports or (name, key) == ("yolo", "score")
        assert (LOSSES[key][0] in reported) == is_lost, (key, losses)
    assert (LOSSES["parts"][0] in reported) == ("parts" not in supports and name not in FORMATS_WITHOUT_POLYGONS)
    assert (
        "1 attributes of objects" if name == "dlib" else LOSSES["attributes"][0]
    ) in reported or "attributes" in supports


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_second_round_loses_nothing_more(name: str, tmp_path: Path) -> None:
    write_annotations(small_set(tmp_path / "source"), name, tmp_path / "first")
    once = read_annotations(tmp_path / "first")
    losses = write_annotations(once, name, tmp_path / "second")
    twice = read_annotations(tmp_path / "second")
    assert losses in ((), ("1 polygons with holes become masks",))
    assert _by_name(once) == _by_name(twice)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_unsplit_sets_stay_unsplit(name: str, tmp_path: Path) -> None:
    source = small_set(tmp_path / "source")
    whole = AnnotatedDataset(source.root, source.classes, {"all": source.images()})
    write_annotations(whole, name, tmp_path / "out")
    back = read_annotations(tmp_path / "out")
    assert {split: len(images) for split, images in back.splits.items()} == {"all": 5}


@pytest.mark.data
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_real_labels_come_back(name: str, tmp_path: Path, data_folder: Path) -> None:
    """Raccoon (whole pixels) and the polygons of coco128, through every format."""
    supports = get_format(name).supports
    for source in (data_folder / "raccoon", data_folder / "coco128" / "instances_panoptic100.json"):
        dataset = read_annotations(source)
        dataset = replace(dataset, splits={split: images[:30] for split, images in dataset.splits.items()})
        write_annotations(dataset, name, tmp_path / source.stem, "link")
        back = read_annotations(tmp_path / source.stem)
        before, after = _by_name(dataset), _by_name(back)
        assert after.keys() == before.keys()
        for file_name, (_, objects) in before.items():
            for obj, now in zip(objects or (), after[file_name][1] or (), strict=True):
                assert back.classes[now.label] == dataset.classes[obj.label]
                box = obj.box
                if obj.polygons and "polygons" in supports and "boxes" not in supports:
                    box = bounding_box(obj.polygons)
                assert np.allclose(now.box, box, atol=0.5 if name == "dlib" else 1e-3), (file_name, box, now.box)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    from hubel.errors import DataError

    source = small_set(tmp_path / "source")
    (tmp_path / "out").mkdir()
    write_annotations(source, "coco", tmp_path / "out")  # an empty folder may be filled
    kept = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(DataError, match="is not empty"):
        write_annotations(source, "yolo", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == kept


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_set(tmp_path / "source")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_annotations(source, "voc", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_images_of_the_same_name_get_their_own(tmp_path: Path) -> None:
    from hubel.data.annotations import AnnotatedImage
    from labelled_sets import write_image

    paths = [write_image(tmp_path / "in" / folder / "a.jpg") for folder in ("x", "y")]
    images = tuple(
        AnnotatedImage(path, WIDTH, HEIGHT, (Annotation(0, (n, 0, n + 5, 5)),)) for n, path in enumerate(paths)
    )
    losses = write_annotations(AnnotatedDataset(tmp_path, ("it",), {"all": images}), "voc", tmp_path / "out")
    back = _by_name(read_annotations(tmp_path / "out"))
    assert losses == ("1 images are renamed, because another has the same name",)
    assert {name: objects and objects[0].box[0] for name, (_, objects) in back.items()} == {"a.jpg": 0, "a-2.jpg": 1}
