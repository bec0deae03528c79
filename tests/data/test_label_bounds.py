"""Small label files that ask for much: pixels, expansions, backtracking, faults. Each ends at once with one error."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel import masks
from hubel.data.annotations import format as format_module
from hubel.data.annotations import parse, read_annotations
from hubel.data.annotations.format import FileHead
from hubel.data.annotations.png_masks import decode_png, encode_png
from hubel.data.mot import read_mot_text
from hubel.errors import DataError
from labelled_sets import write_image

SIDE = 8_000  # 64 megapixels, within what an image may have


def _cvat(objects: int) -> str:
    mask = f'<mask label="cat" rle="0, {SIDE**2}" left="0" top="0" width="{SIDE}" height="{SIDE}"/>'
    return (
        f'<annotations><image id="0" name="a.jpg" width="{SIDE}" height="{SIDE}">{mask * objects}</image></annotations>'
    )


def _coco(objects: int) -> str:
    mask = {"size": [SIDE, SIDE], "counts": [0, SIDE**2]}
    rows = [{"id": n, "image_id": 1, "category_id": 1, "segmentation": mask} for n in range(objects)]
    images = [{"id": 1, "file_name": "a.jpg", "width": SIDE, "height": SIDE}]
    return json.dumps({"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": rows})


@pytest.mark.parametrize(("name", "text"), [("a.xml", _cvat(300)), ("a.json", _coco(3000))])
def test_masks_of_more_pixels_than_a_file_of_that_size_has_are_refused(name: str, text: str, tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="masks have .* megapixels"):
        read_annotations(tmp_path, on_fault=lambda fault: None)


def test_many_masks_of_ordinary_images_are_read(tmp_path: Path) -> None:
    """A hundred masks in an image of twelve megapixels: 1.2 gigapixels, of which real run lengths take kilobytes."""
    height, width = 3000, 4000
    part = np.hypot(*np.mgrid[-200:200, -200:200]) < 190
    mask = masks.encode_part(part, 700, 800, height, width).to_coco()
    rows = [{"id": n, "image_id": 1, "category_id": 1, "segmentation": mask} for n in range(100)]
    images = [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}]
    write_image(tmp_path / "a.jpg")
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": rows}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (image,) = read_annotations(tmp_path).images()
    assert image.objects is not None
    assert [masks.mask_area(obj.mask) for obj in image.objects if obj.mask] == [int(part.sum())] * 100


def test_a_part_of_a_mask_is_encoded_like_the_whole() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        height, width = random.integers(1, 9, 2).tolist()
        h, w = int(random.integers(1, height + 1)), int(random.integers(1, width + 1))
        top, left = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
        part = random.random((h, w)) < random.choice([0, 0.2, 0.5, 0.9, 1])
        whole = np.zeros((height, width), bool)
        whole[top : top + h, left : left + w] = part
        assert masks.encode_part(part, left, top, height, width) == masks.encode(whole)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_embedded_png_masks_of_every_mode_are_read(mode: str) -> None:
    painted = np.random.default_rng(1).random((31, 23)) < 0.4
    image = Image.fromarray(painted.astype(np.uint8) * 255)
    if mode in ("LA", "RGBA"):
        alpha, image = image, Image.new(mode, image.size)
        image.putalpha(alpha)
    elif mode == "P":
        image = image.point(lambda value: value // 255, "P")
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.info["transparency"] = 0
    file = io.BytesIO()
    image.convert(mode).save(file, "PNG")
    mask = decode_png(base64.b64encode(file.getvalue()).decode(), 3, 5, 40, 50)
    expected = np.zeros((50, 40), bool)
    expected[5:36, 3:26] = painted
    assert np.array_equal(masks.decode(mask), expected)
    assert encode_png(mask)[1:] == tuple(map(int, (*masks.mask_box(mask)[:2], *_sides(masks.mask_box(mask)))))


def _sides(box: masks.Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def test_an_embedded_mask_takes_the_memory_of_its_pixels() -> None:
    """In a process of its own, whose peak no other test has set; in RGBA alone the mask would have 256 MB."""
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([0, 0, 0, 255, 0, 0])
    file = io.BytesIO()
    image.save(file, "PNG")
    text = base64.b64encode(zlib.compress(file.getvalue())).decode()
    program = f"""
import resource, sys
from hubel.data.annotations.png_masks import decode_png
decode_png({_dot()!r}, 0, 0, 9, 9)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_png(sys.stdin.read(), 0, 0, {SIDE}, {SIDE}, compressed=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], input=text, capture_output=True, text=True, check=True)
    assert int(done.stdout) / 1000 < 6 * SIDE**2 / 1e6


def _dot() -> str:
    return encode_png(masks.encode(np.eye(9, dtype=bool)))[0]


BACKTRACKING = {
    "quotes.json": '["' + '\\"' * 32_000,
    "breaks.json": '["' + '\\\n"' * 21_000,
    "comments.xml": "<!--" * 16_000,
    "instructions.xml": "<?" * 32_000,
    "types.xml": "<!DOCTYPE[" * 6_400,
}


@pytest.mark.parametrize("name", BACKTRACKING)
def test_a_format_is_recognized_in_linear_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "_HEAD_BYTES", 1 << 22)  # quadratic time would be hours
    (tmp_path / name).write_text(BACKTRACKING[name] * 64)
    head = FileHead(tmp_path / name)
    assert not head.xml_root
    assert not any(head.keys.values())


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("<?xml version='1.0'?>\n<!-- <a> --><annotation>", "annotation"),
        ("<!DOCTYPE a [<!ENTITY b '>'>]>\n<annotations x='<y>'>", "annotations"),
        ("<!DOCTYPE dataset SYSTEM 'x.dtd'><dataset>", "dataset"),
        ("<1>", ""),
        ("<!-- not closed", ""),
        ("<?xml", ""),
        ("no XML", ""),
    ],
)
def test_the_root_of_an_xml_file_is_found_behind_its_prologue(text: str, root: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    assert FileHead(tmp_path / "a.xml").xml_root == root


def test_a_list_of_zeros_for_annotations_ends_after_some_thousand_faults(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text('{"images": [], "categories": [], "annotations": [' + "0," * 200_000 + "0]}")
    faults: list[DataError] = []
    with pytest.raises(DataError, match=r"more than 10,000 annotations cannot be read, the last: .*a\.json"):
        read_annotations(tmp_path, on_fault=faults.append)
    assert len(faults) == 10_000


def test_a_folder_named_many_times_is_listed_once(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text(f"names: [cat]\ntrain: [{'images, ./images/, ' * 400}]\n")
    (image,) = read_annotations(tmp_path).images()
    assert image.objects is not None and len(image.objects) == 1
    (tmp_path / "data.yaml").write_text(f"names: [cat]\ntrain: [{'images, ' * 9_000}]\n")
    with pytest.raises(DataError, match="train has 9,000 paths"):
        read_annotations(tmp_path)
    (tmp_path / "data.yaml").write_text(f"names: [cat]\ntrain: {'/a' * 30_000}\n")
    with pytest.raises(DataError, match="of up to 60,000 letters"):
        read_annotations(tmp_path)


def test_rows_of_csv_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_MAX_ROW", 1 << 16)
    assert list(parse.csv_rows('a,b\r\n"c\nd",e\r\n\nf')) == [(1, ["a", "b"]), (3, ["c\nd", "e"]), (5, ["f"])]
    for text in ("," * (1 << 17), '"' + "\n" * (1 << 17), ('"\n",' + "," * 99) * 1_800):
        with pytest.raises(parse.InvalidAnnotation, match="not valid CSV"):
            list(parse.csv_rows(text))


def test_xml_elements_of_one_image_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_MAX_ELEMENTS", 1_000)
    (tmp_path / "a.xml").write_text("<annotation>" + "<a/>" * 2_100 + "</annotation>")
    with pytest.raises(parse.InvalidAnnotation, match="elements"):
        parse.read_xml(tmp_path / "a.xml")
    with pytest.raises(parse.InvalidAnnotation, match="elements"):
        list(parse.iterate_xml(tmp_path / "a.xml", "annotation"))
    assert not list(parse.iterate_xml(tmp_path / "a.xml", "image"))


def test_images_of_an_xml_file_keep_their_parts_until_they_are_read(tmp_path: Path) -> None:
    image = "<image><box><attribute>{}</attribute></box></image>"
    (tmp_path / "a.xml").write_text(f"<x><y><z/></y>{image.format(1)}<y/>{image.format(2)}</x>")
    found = [element.findtext("box/attribute") for element in parse.iterate_xml(tmp_path / "a.xml", "image", "meta")]
    assert found == ["1", "2"]


@pytest.mark.parametrize("frame", [2_147_483_647, 1_732_924_800, 102_001])
def test_a_time_stamp_for_a_frame_is_refused(frame: int, tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text(f"1,-1,1,2,3,4,1\n{frame},-1,1,2,3,4,1\n")
    with pytest.raises(DataError, match=rf"line 2: the frame is beyond 102,000.*: {frame}\n"):
        read_mot_text(tmp_path / "det.txt")


def test_frames_far_apart_take_the_memory_of_their_boxes(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("3,-1,1,2,3,4,1\n3,-1,2,2,3,4,1\n100000,-1,1,2,3,4,1\n")
    boxes = read_mot_text(tmp_path / "det.txt")
    found = [(number, rows.stop - rows.start) for number, rows in boxes.by_frame()]
    assert len(found) == 100_000 and [row for row in found if row[1]] == [(3, 2), (100_000, 1)]
    assert [number for number, _ in found] == list(range(1, 100_001))


def test_lines_of_mot_text_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("1," * 200_000)
    with pytest.raises(DataError, match="line 1: has 399,999 characters"):
        read_mot_text(tmp_path / "det.txt")
