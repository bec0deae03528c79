"""`hubel data agree`: sets in several formats, class folders and tables; what is found, written and refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from hubel.cli.main import main
from hubel.data.annotations import Annotation, read_annotations, write_annotations
from label_errors import Planted, scene


def _ended(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", "agree", *(str(word) for word in arguments)])
    return int(ended.value.code or 0)


def _report(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    assert _ended(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ann's is right; Bob lacks two boxes, invents one and calls a bus a car; Eve draws 4 pixels to the right."""
    root = tmp_path_factory.mktemp("sets")
    planted = Planted(root / "pictures")
    right = planted.dataset()
    write_annotations(right, "coco", root / "ann", "link")
    train, val = right.splits["train"], right.splits["val"]
    objects = train[0].objects or ()
    bob = list(train)
    bob[0] = replace(train[0], objects=objects[1:])
    bob[1] = replace(train[1], objects=(*objects[:2], Annotation(1, (120, 80, 150, 110))))
    bob[2] = replace(train[2], objects=(replace(objects[0], label=1), *objects[1:]))
    write_annotations(replace(right, splits={"train": tuple(bob), "val": val}), "voc", root / "bob", "link")
    moved = tuple(replace(obj, box=(obj.box[0] + 4, obj.box[1], obj.box[2] + 4, obj.box[3])) for obj in objects)
    # Eve has done the training images only.
    eve = tuple(replace(image, objects=moved) for image in train)
    write_annotations(replace(right, splits={"train": eve}), "yolo", root / "eve", "link")
    return [root / name for name in ("ann", "bob", "eve")]


def test_numbers_are_those_of_what_was_planted(sets: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    report = _report(capsys, *sets)
    assert (report["pictures"], report["things"], report["classes"]) == (9, 28, ["bus", "car", "nothing"])
    ann, bob, eve = report["annotators"]
    assert [(each["pictures"], each["labels"]) for each in (ann, bob, eve)] == [(9, 27), (9, 26), (6, 18)]
    assert [(each["missed"], each["added"]) for each in (ann, bob, eve)] == [(0, 0), (2, 1), (0, 0)]
    assert ann["reliability"] == pytest.approx(1)
    assert eve["reliability"] == pytest.approx(1)
    assert bob["reliability"] == pytest.approx(24 / 28)
    first, second, third = report["pairs"]
    # Of Ann's 27 and Bob's 26 boxes, 25 are the same; one of them has two classes.
    assert first["found"] == pytest.approx(2 * 25 / 53)
    classes = (["bus"] * 17 + ["car"] * 8, ["car"] + ["bus"] * 16 + ["car"] * 8)
    assert first["kappa"] == pytest.approx(cohen_kappa_score(*classes))
    assert first["mean_iou"] == pytest.approx(1)
    # Boxes of 40 pixels, 4 of which are not shared.
    assert second["mean_iou"] == pytest.approx(36 / 44)
    assert (second["pictures"], third["pictures"]) == (6, 6)
    doubts = {Path(each["picture"]).name: each["reasons"] for each in report["second_look"]}
    assert doubts == {
        "train0.png": ["1 object not drawn by bob"],
        "train1.png": ["1 object not drawn by bob", "1 object not drawn by ann and eve"],
        "train2.png": ["bus (ann, eve) or car (bob)"],
    }
    assert [each["agreement"] for each in report["second_look"]] == sorted(
        each["agreement"] for each in report["second_look"]
    )


@pytest.mark.parametrize("method", ["majority", "dawid-skene"])
def test_the_consensus_is_what_most_have_drawn(sets: list[Path], tmp_path: Path, method: str) -> None:
    out = tmp_path / "agreed"
    assert _ended(*sets, "--by", method, "--consensus", out, "--to", "coco", "--images", "link") == 0
    agreed = read_annotations(out)
    assert {split: len(images) for split, images in agreed.splits.items()} == {"train": 6, "val": 3}
    right = read_annotations(sets[0])
    for image, truth in zip(agreed.images(), right.images(), strict=True):
        assert image.path.resolve() == truth.path.resolve()
        assert [obj.label for obj in image.objects or ()] == [obj.label for obj in truth.objects or ()]
    # Two drew it here and Eve there: the median. Of one and Eve, the mean.
    both, lacking = (agreed.splits["train"][at].objects or () for at in (3, 0))
    assert both[0].box == (20, 30, 60, 70)
    assert lacking[0].box == (22, 30, 62, 70)


def test_readable_answer_and_two_annotators(sets: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(*sets[:2]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["annotator", "images", "objects", "reliability", "missed", "added", "mean", "IoU"]
    assert lines[1].split() == ["ann", "9", "27", "–", "1", "0", "1.000"]
    # The cross-table of 25 matched boxes by hand: 24 on the diagonal, chance (17·16 + 8·9) / 25².
    assert "ann, bob       9          0.943     1.000       0.960  0.911" in lines
    assert "worth a second look: 3 of 9 images" in lines


def test_one_set_that_names_its_annotators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = Planted(tmp_path / "set")
    for name, image in planted.images.items():
        objects = image.objects or ()
        by = [replace(obj, annotator=who) for who in ("ann@x.org", "bob@x.org") for obj in objects]
        planted.images[name] = replace(image, objects=tuple(by[1:] if name == "val7.png" else by))
    report = _report(capsys, planted.write("label-studio"))
    assert [each["name"] for each in report["annotators"]] == ["ann@x.org", "bob@x.org"]
    assert [each["labels"] for each in report["annotators"]] == [26, 27]
    assert [each["reasons"] for each in report["second_look"]] == [["1 object not drawn by ann@x.org"]]


TABLE = """image,annotator,label
a.jpg,ann,cat
a.jpg,bob,cat
a.jpg,eve,cat
b.jpg,ann,dog
b.jpg,bob,cat
b.jpg,eve,dog
c.jpg,ann,dog
c.jpg,bob,dog
c.jpg,eve,
"""


def test_a_table_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "said.csv").write_text(TABLE, encoding="utf-8")
    report = _report(capsys, tmp_path / "said.csv", "--consensus", tmp_path / "agreed.csv")
    # By hand: coincidences cat-cat 3, dog-dog 3 (1 + 2), cat-dog 1 each way, of 8 values, 4 of each.
    assert report["alpha"] == pytest.approx(1 - 7 * 2 / (64 - 16 - 16))
    assert [each["picture"] for each in report["second_look"]] == [str(tmp_path / "b.jpg")]
    with (tmp_path / "agreed.csv").open(encoding="utf-8") as file:
        rows = {row["image"]: row["label"] for row in csv.DictReader(file)}
    assert rows == {"a.jpg": "cat", "b.jpg": "dog", "c.jpg": "dog"}


def test_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sorted_by = {"ann": "ccdd", "bob": "ccdd", "eve": "cddd"}
    for who, classes in sorted_by.items():
        for number, letter in enumerate(classes):
            folder = tmp_path / who / {"c": "cat", "d": "dog"}[letter]
            folder.mkdir(parents=True, exist_ok=True)
            scene(number).save(folder / f"{number}.png")
    out = tmp_path / "agreed"
    report = _report(capsys, *(tmp_path / who for who in sorted_by), "--consensus", out)
    assert report["annotators"][2]["reliability"] == pytest.approx(0.75)
    assert report["pairs"][1]["kappa"] == pytest.approx(cohen_kappa_score(list("ccdd"), list("cddd")))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == [
        "cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png",
    ]  # fmt: skip


def test_refusals(sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = Planted(tmp_path / "other")
    elsewhere.images = {
        f"x{name}": replace(image, path=image.path.rename(image.path.with_name(f"x{name}")))
        for name, image in elsewhere.images.items()
    }
    other = elsewhere.write("coco")
    table, hostile, twice = (tmp_path / f"{name}.csv" for name in ("table", "hostile", "twice"))
    table.write_text(TABLE, encoding="utf-8")
    hostile.write_text("image,annotator,label\n../a.jpg,ann,cat\n", encoding="utf-8")
    twice.write_text("image,annotator,label\na.jpg,ann,cat\na.jpg,ann,dog\n", encoding="utf-8")
    unnameable = tmp_path / "unnameable.csv"
    unnameable.write_text("image,annotator,label\na\0.jpg,ann,cat\na\0.jpg,bob,cat\n", encoding="utf-8")
    outside = tmp_path / "outside.csv"
    outside.write_text("image,annotator,label\na.jpg,ann,../../cat\na.jpg,bob,../../cat\n", encoding="utf-8")
    scene(1).save(tmp_path / "a.jpg")
    ann, bob, _ = sets
    refused: list[tuple[list[str | Path], int, str]] = [
        ([ann], 2, "the labels of only one annotator"),
        ([ann, ann], 2, "is given twice"),
        ([ann, other], 1, "no image in common"),
        ([ann, table], 1, "have different kinds of labels"),
        ([ann, tmp_path / "nowhere"], 1, "does not exist"),
        ([ann, bob, "--consensus", bob / "agreed"], 2, "is inside the data set"),
        ([ann, bob, "--consensus", other], 1, "is not empty"),
        ([table, "--consensus", tmp_path / "agreed"], 1, "does not exist"),
        ([table, "--consensus", tmp_path / "agreed", "--to", "coco"], 2, "cannot be written as coco"),
        ([hostile], 1, "row 2 names '../a.jpg', which is outside"),
        ([unnameable], 1, r"row 2 names 'a\x00.jpg', which no file can be called"),
        ([twice], 1, "row 3: ann labels a.jpg 'dog', but 'cat' in an earlier row"),
        ([outside, "--consensus", tmp_path / "agreed"], 1, "cannot be the name of a folder"),
    ]
    for arguments, code, message in refused:
        assert _ended(*arguments) == code, arguments
        report = capsys.readouterr().err
        assert message in report
        assert "hint:" in report
    assert not (tmp_path / "agreed").exists()
