"""Label files in the encodings that people's programs write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubel.data.annotations import read_annotations, write_annotations
from hubel.data.annotations.encodings import GUESSES, decode_file, xml_text
from hubel.errors import DataError
from labelled_sets import write_image

OBJECT = (
    "<annotation><filename>a.jpg</filename><object><name>{}</name><bndbox><xmin>2</xmin><ymin>3</ymin>"
    "<xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"
)
CVAT = '<annotations><image name="a.jpg"><box label="{}" xtl="1" ytl="2" xbr="20" ybr="30"/></image></annotations>'


def _classes(root: Path, name: str, content: bytes) -> tuple[str, ...]:
    write_image(root / "a.jpg")
    (root / name).write_bytes(content)
    return read_annotations(root).classes


@pytest.mark.parametrize("layout", [OBJECT, CVAT])
@pytest.mark.parametrize(
    ("declared", "written", "name"),
    [
        ("gb2312", "gb2312", "猫"), ("GBK", "gbk", "貓"), ("gb2312", "gbk", "貓"), ("GB18030", "gb18030", "猫"),
        ("Shift_JIS", "shift_jis", "猫"), ("shift-jis", "cp932", "①"), ("EUC-JP", "euc_jp", "猫"),
        ("big5", "big5", "貓"), ("EUC-KR", "euc_kr", "고양이"), ("windows-1251", "cp1251", "кот"),
        ("iso-8859-1", "latin-1", "café"),
        ("UTF-8", "utf-8", "猫"), ("utf-8", "utf-8-sig", "猫"), ("utf-16", "utf-16", "猫"), ("utf-8", "utf-16", "猫"),
        ("utf-16", "utf-16-le", "猫"), ("utf-16", "utf-16-be", "猫"),
        # A declaration that is wrong: what the bytes are wins where they can only be UTF-8.
        ("utf-16", "utf-8", "猫"), ("ascii", "utf-8", "猫"), ("mbcs", "utf-8", "猫"), ("gb2312", "utf-8", "cat"),
    ],
)  # fmt: skip
def test_xml_is_read_as_it_declares(layout: str, declared: str, written: str, name: str, tmp_path: Path) -> None:
    text = f'<?xml version="1.0" encoding="{declared}" standalone="yes"?>\n{layout.format(name)}'
    assert _classes(tmp_path, "a.xml", text.encode(written)) == (name,)


@pytest.mark.parametrize(
    ("declaration", "written", "message"),
    [
        ('<?xml version="1.0"?>', "gbk", "is not in the encoding that XML has without a declaration, UTF-8"),
        ('<?xml version="1.0" encoding="UTF-8"?>', "gbk", "is not in the encoding that it declares, UTF-8"),
        ('<?xml version="1.0" encoding="utf-16"?>', "gbk", "declares the encoding utf-16, which it is not in"),
        ('<?xml version="1.0" encoding="martian"?>', "gbk", "declares the encoding martian, which is unknown"),
        ('<?xml version="1.0" encoding="rot13"?>', "gbk", "declares the encoding rot13, which is unknown"),
    ],
)
@pytest.mark.parametrize("layout", [OBJECT, CVAT])
def test_xml_in_another_encoding_is_not_called_harmful(
    layout: str, declaration: str, written: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        _classes(tmp_path, "a.xml", f"{declaration}{layout.format('猫狗鸟')}".encode(written))
    assert caught.value.message == f"{tmp_path / 'a.xml'}: {message}"
    assert caught.value.hint == "save it as UTF-8"


def test_codecs_that_interpret_are_no_encodings() -> None:
    for name in ("unicode_escape", "raw_unicode_escape", "idna", "punycode", "utf-7", "hex", "zlib"):
        text = f'<?xml version="1.0" encoding="{name}"?><a>\\x41+AGE-</a>'
        assert xml_text(text.encode()) == text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_unicode_in_all_its_forms(encoding: str, tmp_path: Path) -> None:
    box = {"label": "猫", "coordinates": {"x": 20, "y": 20, "width": 10, "height": 10}}
    content = json.dumps([{"image": "a.jpg", "annotations": [box]}], ensure_ascii=False)
    for kind, (name, text) in {
        "json": ("c.json", content),
        "csv": ("b.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\na,猫,0.1,0.5,0.1,0.5\n"),
        "yaml": ("data.yaml", "names: [猫]\ntrain: .\n"),
    }.items():
        root = tmp_path / kind
        write_image(root / "a.jpg")
        if kind == "yaml":
            (root / "a.txt").write_bytes("0 0.5 0.5 0.3 0.3\r\n".encode(encoding))
        assert _classes(root, name, text.encode(encoding)) == ("猫",)
        assert read_annotations(root).images()[0].objects


def test_a_guessed_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    assert _classes(tmp_path, "classes.txt", "café\n".encode("latin-1")) == ("café",)
    assert read_annotations(tmp_path).warnings == (
        f"{tmp_path / 'classes.txt'} is not in UTF-8, and read as Windows-1252: where names look wrong, save as UTF-8",
    )


GUESSED = {
    "gb18030": ["狗", "工人安全帽", "口罩，未戴", "裂纹"],
    "cp932": ["ねこ", "猫のかお", "表のソース", "ネコ"],
    "cp1251": ["кошка", "машина и дом", "Человек"],
    "cp1252": ["café", "Müller straße", "España niño", "É", "“dog” – dog’s", "Škoda", "pão, ção, ções", "ÜBER ÖL"],
}


@pytest.mark.parametrize("encoding", GUESSED)
def test_what_text_without_a_declaration_is_in(encoding: str, tmp_path: Path) -> None:
    for name in GUESSED[encoding]:
        assert decode_file(name.encode(encoding)) == (name, GUESSES[encoding])
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    names = GUESSED[encoding]
    content = f"names: {json.dumps(names, ensure_ascii=False)}\ntrain: .\n".encode(encoding)
    assert _classes(tmp_path, "data.yaml", content) == tuple(names)
    assert f"read as {GUESSES[encoding]}:" in " ".join(read_annotations(tmp_path).warnings)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "a.txt").write_bytes(b"0 0.5 0.5 0.3 0.3\n\x81\x8d\xff\n")
    with pytest.raises(DataError, match=r"a.txt: is not text in an encoding that can be told"):
        read_annotations(tmp_path)
    with pytest.raises(UnicodeError):
        decode_file(b"\x81\xff")


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "via", "cvat", "labelme", "open-images", "supervisely"])
def test_half_a_surrogate_pair_can_be_written(format: str, tmp_path: Path) -> None:
    r"""JSON may hold ``\ud800``, which no file can."""
    write_image(tmp_path / "in" / "a.jpg")
    shape = {"label": "c\ud800t", "points": [[1, 2], [20, 30]], "shape_type": "rectangle", "description": "\udfff"}
    content = {"version": "5", "imagePath": "a.jpg", "imageWidth": 64, "imageHeight": 48, "shapes": [shape]}
    (tmp_path / "in" / "a.json").write_text(json.dumps(content))
    write_annotations(read_annotations(tmp_path / "in"), format, tmp_path / "out")
    assert read_annotations(tmp_path / "out").classes == ("c\ufffdt",)
