"""`hubel data split`: fair shares of every class, look-alikes together, the original untouched."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedShuffleSplit

from hubel.cli.main import main
from hubel.data.annotations import read_annotations
from hubel.data.image_folder import read_class_folders
from hubel.data.resplit import iterative_stratification
from label_errors import Planted, scene

SHARES = (0.75, 0.15, 0.10)


def _ended(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", "split", *(str(word) for word in arguments)])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("seed", range(3))
def test_single_labels_are_dealt_as_scikit_learn_deals_them(seed: int) -> None:
    labels = np.repeat([0, 1, 2], (40, 100, 20))
    part_of = iterative_stratification(np.eye(3, dtype=int)[labels], np.ones(160, int), (0.75, 0.25), seed)
    train, _ = next(StratifiedShuffleSplit(1, train_size=0.75, random_state=seed).split(labels, labels))
    assert np.bincount(labels[part_of == 0]).tolist() == np.bincount(labels[train]).tolist() == [30, 75, 15]


def _unfairness(counts: np.ndarray, part_of: np.ndarray) -> float:
    """How far the parts' shares of every label are from what they should be."""
    shares = np.array([counts[part_of == part].sum(0) / counts.sum(0) for part in range(3)])
    return float(np.abs(shares - np.array(SHARES)[:, None]).mean())


def test_several_labels_are_dealt_more_evenly_than_at_random() -> None:
    rng = np.random.default_rng(0)
    counts = (rng.random((400, 8)) < np.geomspace(0.5, 0.03, 8)).astype(int)
    counts[counts.sum(1) == 0, 0] = 1
    random = [_unfairness(counts, rng.permutation(np.repeat([0, 1, 2], (300, 60, 40)))) for _ in range(50)]
    for seed in range(5):
        part_of = iterative_stratification(counts, np.ones(400, int), SHARES, seed)
        assert _unfairness(counts, part_of) < 0.5 * min(random)
        np.testing.assert_allclose(np.bincount(part_of), (300, 60, 40), atol=8)
        for part, share in enumerate(SHARES):
            np.testing.assert_allclose(counts[part_of == part].sum(0), share * counts.sum(0), atol=1)


def test_groups_and_shares_of_nothing() -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([30, 12, *[1] * 158])
    counts = np.zeros((160, 2), int)
    counts[np.arange(160), rng.integers(0, 2, 160)] = sizes
    part_of = iterative_stratification(counts, sizes, (0.8, 0.2, 0.0), 0)
    assert np.bincount(part_of, sizes).tolist() == pytest.approx([160, 40], abs=2)
    assert (part_of != iterative_stratification(counts, sizes, (0.8, 0.2, 0.0), 1)).any()


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Forty unsplit images in two classes; five of them are there twice more: the same bytes, and stored again."""
    for number in range(40):
        folder = tmp_path / "films" / ("bus" if number % 3 else "car")
        folder.mkdir(parents=True, exist_ok=True)
        image = scene(number)
        image.save(folder / f"{number}.png")
        if number < 5:
            image.save(folder / f"{number}-same.png")
            image.resize((80, 60), Image.Resampling.BILINEAR).save(folder / f"{number}-again.jpg", quality=70)
    return tmp_path / "films"


def test_class_folders_are_divided_and_look_alikes_stay_together(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(films.rglob("*"))
    out = tmp_path / "divided"
    assert _ended(films, "--out", out, "--json") == 0
    output = json.loads(capsys.readouterr().out)
    assert output["together"] == {"groups": 5, "pictures": 15}
    divided = read_class_folders(out)
    shares = {split: Counter(sample.label for sample in samples) for split, samples in divided.splits.items()}
    totals = Counter(sample.label for samples in divided.splits.values() for sample in samples)
    assert totals == {0: 32, 1: 18}
    for split, share in zip(("train", "val", "test"), SHARES, strict=True):
        assert [shares[split][label] for label in (0, 1)] == pytest.approx([share * 32, share * 18], abs=2)
    split_of = {sample.path.stem: split for split, samples in divided.splits.items() for sample in samples}
    for number in range(5):
        assert split_of[f"{number}"] == split_of[f"{number}-same"] == split_of[f"{number}-again"]
    assert sorted(films.rglob("*")) == before
    # The same seed, the same division; another, another.
    for seed, same in ((0, True), (1, False)):
        again = tmp_path / f"seed{seed}"
        assert _ended(films, "--out", again, "--seed", str(seed), "--images", "link") == 0
        names = {sample.path.name for sample in read_class_folders(again).splits["train"]}
        assert (names == {sample.path.name for sample in divided.splits["train"]}) is same


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "cvat"])
def test_labelled_images_keep_their_labels_and_format(tmp_path: Path, format: str) -> None:
    planted = Planted(tmp_path / "set")
    first = planted.images["train0.png"]
    planted.images["train1.png"] = replace(planted.images["train1.png"], objects=())
    planted.images["train0.png"] = replace(first, objects=(first.objects or ())[:2])
    source = planted.write(format)
    out = tmp_path / "divided"
    assert _ended(source, "--anew", "--split", "0.5,0.25,0.25", "--out", out) == 0
    old, new = read_annotations(source), read_annotations(out)
    assert (new.format, new.classes) == (old.format, old.classes)
    assert [len(new.splits[split]) for split in ("train", "val", "test")] == pytest.approx([4.5, 2.25, 2.25], abs=1)
    labels = {image.path.name: image.objects for image in old.images()}
    assert {image.path.name: image.objects for image in new.images()} == labels


def test_a_training_set_gives_what_validates(tmp_path: Path) -> None:
    source = Planted(tmp_path / "set").write("coco")
    (source / "annotations" / "instances_val.json").unlink()
    assert list(read_annotations(source).splits) == ["train"]
    assert _ended(source, "--out", tmp_path / "divided") == 0
    divided = read_annotations(tmp_path / "divided")
    assert {split: len(images) for split, images in divided.splits.items()} == {"train": 5, "val": 1}


def test_refusals(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = Planted(tmp_path / "set").write("coco")
    alike = tmp_path / "alike" / "car"
    alike.mkdir(parents=True)
    for number in range(6):
        scene(1).save(alike / f"{number}.png")
    refused: list[tuple[list[str | Path], int, str]] = [
        ([split, "--out", tmp_path / "a"], 1, "is already split: train, val"),
        ([films, "--out", films / "a"], 2, "is inside the data set"),
        ([films, "--out", split], 1, "is not empty"),
        ([films, "--out", tmp_path / "a", "--images", "none"], 2, "cannot be written without images"),
        ([films, "--out", tmp_path / "a", "--split", "0.5,0.2"], 2, "is not three numbers"),
        ([alike.parent, "--out", tmp_path / "a"], 1, "nothing is left for val, test"),
    ]
    for arguments, code, message in refused:
        assert _ended(*arguments) == code, arguments
        assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
