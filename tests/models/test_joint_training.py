"""YOLO9000's training on images with boxes and images of a known class together: the loss, and what it teaches."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import hubel
from hubel.data.transforms.object_transform import ObjectTransform
from hubel.data.transforms.pipeline import Decoded
from hubel.errors import DataError, UsageError
from hubel.models import create_model
from hubel.models.base import DetectionTargets, Detector, ObjectTargets
from hubel.models.darknet.heads import RegionHead
from hubel.models.darknet.region_loss import region_losses
from hubel.models.darknet.word_tree import WordTree
from hubel.training.run_data import read_run_data
from hubel.training.train import complete_config
from hubel.weights.darknet_tree import parse_tree

TREE = parse_tree("thing -1\nanimal -1\ndog 1\ncat 1\nowl 1\nterrier 2\nspaniel 2\n")
HEAD = replace(RegionHead(32, ((20.0, 20.0), (70.0, 30.0))), tree=WordTree(TREE))
PLAIN = RegionHead(32, ((20.0, 20.0), (70.0, 30.0)))
SIZE = (64, 96)
NO_BOXES = torch.zeros(0, 4, dtype=torch.float64)


def rows_of(seed: int = 0, classes: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.rand(HEAD.count(SIZE), 5 + classes, generator=generator, dtype=torch.float64) - 2


def way(label: int) -> list[int]:
    """The classes from a label to its root."""
    return [] if label < 0 else [label, *way(TREE.parents[label])]


def cross_entropies(classes: list[float], label: int) -> float:
    """Of each group on the way from the label to the root, by plain loops."""
    total = 0.0
    for node in way(label):
        siblings = [k for k, parent in enumerate(TREE.parents) if parent == TREE.parents[node]]
        total += math.log(sum(math.exp(classes[k]) for k in siblings)) - classes[node]
    return total


@pytest.mark.parametrize("label", range(7))
def test_an_image_without_boxes_teaches_its_class_to_the_likeliest_box(label: int) -> None:
    raw = rows_of(label)
    found = region_losses(HEAD, raw, ObjectTargets(NO_BOXES, torch.tensor([label])), SIZE, learns_priors=True)
    likely = [math.exp(-cross_entropies(row[5:], label)) / (1 + math.exp(-row[4])) for row in raw.tolist()]
    best = max(range(len(raw)), key=likely.__getitem__)
    expected = {"box": 0, "objectness": 0, "class": cross_entropies(raw[best, 5:].tolist(), label)}
    assert {name: float(loss) for name, loss in found.items()} == pytest.approx(expected)


def test_nothing_but_the_groups_of_that_box_gets_a_gradient() -> None:
    """Which is, of a group, what the softmax gives, less one for the class itself."""
    raw = rows_of().requires_grad_()
    region_losses(HEAD, raw, ObjectTargets(NO_BOXES, torch.tensor([6])), SIZE)["class"].backward()
    assert raw.grad is not None
    (row,) = {row for row, _ in raw.grad.nonzero().tolist()}
    expected = torch.zeros(7, dtype=torch.float64)
    for group, label in ((slice(0, 2), 1), (slice(2, 5), 2), (slice(5, 7), 6)):
        expected[group] = raw[row, 5:].detach()[group].softmax(0)
        expected[label] -= 1
    torch.testing.assert_close(raw.grad[row, 5:], expected)
    assert not raw.grad[row, :5].any()


def test_boxes_learn_every_group_on_their_way() -> None:
    raw = rows_of()
    boxes = torch.tensor([[6.0, 6, 26, 26], [40, 30, 110, 60]], dtype=torch.float64)
    truth = ObjectTargets(boxes, torch.tensor([5, 1]))
    found = region_losses(HEAD, raw, truth, SIZE)
    rows = 2 * 0 + 0, 2 * (1 * 3 + 2) + 1  # first anchor of cell (0, 0), second of cell (2, 1)
    classes = sum(cross_entropies(raw[row, 5:].tolist(), label) for row, label in zip(rows, (5, 1), strict=True))
    assert float(found["class"]) == pytest.approx(classes)
    flat = region_losses(PLAIN, raw, truth, SIZE)  # all else is YOLOv2's, which other tests check
    assert [found[name] for name in ("box", "objectness")] == [flat[name] for name in ("box", "objectness")]
    assert float(flat["class"]) != pytest.approx(classes)


def test_without_a_tree_classes_exclude_each_other() -> None:
    raw = rows_of()
    found = region_losses(PLAIN, raw, ObjectTargets(NO_BOXES, torch.tensor([3])), SIZE)["class"]
    best = int((raw[:, 4].sigmoid() * raw[:, 5:].softmax(1)[:, 3]).argmax())
    assert float(found) == pytest.approx(-float(raw[best, 5:].log_softmax(0)[3]))


def test_labels_of_mapped_classes() -> None:
    mapped = replace(HEAD, tree=WordTree(TREE, (6, 3)))
    raw = rows_of()
    truths = [ObjectTargets(NO_BOXES, torch.tensor([label])) for label in (1, 3)]
    assert region_losses(mapped, raw, truths[0], SIZE) == region_losses(HEAD, raw, truths[1], SIZE)


def test_transforms_keep_the_class_of_an_image_without_boxes() -> None:
    ready = hubel.models.factory.default_preprocessing("yolo_9000", 64)
    pixels, none = np.zeros((50, 80, 3), np.uint8), np.zeros((0, 4))
    given = Decoded(pixels, (80, 50), none, np.zeros(0, np.int64), label=4)
    for names in ((), ("crop", "flip", "color"), ("zoom",)):
        _, (target,) = ObjectTransform(ready, names)([[given]], [0])
        assert (target.labels.tolist(), target.boxes.shape) == ([4], (0, 4))
    _, (target,) = ObjectTransform(ready)([[replace(given, label=-1)]], [0])
    assert (len(target.labels), target.boxes.shape) == (0, (0, 4))


CFG = "[net]\nwidth=64\nheight=64\nchannels=3\n" + "".join(
    f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride={stride}\npad=1\nactivation=leaky\n"
    for filters, stride in ((16, 2), (32, 2), (64, 2), (64, 1))
)
CFG += "[convolutional]\nfilters=9\nactivation=linear\n[region]\nanchors=2.5,2.5\nclasses=4\nnum=1\nsoftmax=1\n"
CFG += "rescore=1\nobject_scale=5\nthresh=.6\n"
KINDS = "color -1\nred 0\ngreen 0\nblue 0\n"


def scene(rng: np.random.Generator, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square with red, green or blue (kinds 1 to 3) in its middle (3, 64, 64), and its box."""
    image = rng.normal(0.2, 0.05, (64, 64, 3))
    side = int(rng.integers(16, 26))
    x, y = rng.integers(0, 64 - side, 2)
    part = np.full((side, side, 3), rng.uniform(0.7, 1))
    middle = slice(side // 4, -(side // 4))
    part[middle, middle] = np.eye(3)[kind - 1]
    image[y : y + side, x : x + side] = part
    return image.transpose(2, 0, 1).astype(np.float32), np.array([x, y, x + side, y + side], np.float32)


def found_after_training(seed: int, steps: int = 120) -> Mapping[str, float]:
    """Shares of each kind whose best box is in the object and of its class, after a training without boxes of blue."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model: Any = create_model("yolo_9000", cfg=CFG, tree=KINDS)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        images, objects = [], []
        for number in range(16):
            kind = int(rng.integers(1, 3)) if number < 8 else int(rng.integers(1, 4))
            image, box = scene(rng, kind)
            images.append(image)
            boxes = torch.from_numpy(box[None]) if number < 8 else torch.zeros(0, 4)
            objects.append(ObjectTargets(boxes, torch.tensor([kind])))
        targets = DetectionTargets(objects, (64, 64))
        loss = sum(model.losses(model(torch.from_numpy(np.stack(images))), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    found = {}
    for kind, name in enumerate(("red", "green", "blue"), 1):
        images, boxes = zip(*(scene(rng, kind) for _ in range(40)), strict=True)
        with torch.no_grad():
            decoded = model.predictions(model(torch.from_numpy(np.stack(images))), (64, 64))
        hits = 0
        for box, predicted, scores in zip(boxes, decoded["boxes"], decoded["scores"], strict=True):
            row, label = divmod(int(scores.argmax()), 4)
            x, y = (predicted[row, :2] + predicted[row, 2:]).tolist()
            hits += label == kind and box[0] < x / 2 < box[2] and box[1] < y / 2 < box[3]
        found[name] = hits / 40
    return found


def test_a_class_that_never_had_a_box_is_found() -> None:
    found = found_after_training(0)
    assert min(found.values()) > 0.6


def small(folder: Path, images_with_labels: int = 3) -> tuple[Path, Path, Path]:
    """A data set of boxes (red, green), class folders (green, blue), and the tree of all."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for split, count in (("train", 4), ("val", 2)):
        (folder / "data" / split).mkdir(parents=True)
        images, objects = [], []
        for number in range(count):
            image, box = scene(rng, 1 + number % 2)
            save(image, folder / "data" / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
            x, y, *_ = map(int, box)
            side = int(box[2]) - x
            objects.append({"id": number, "image_id": number, "category_id": number % 2, "bbox": [x, y, side, side]})
        categories = [{"id": 0, "name": "red"}, {"id": 1, "name": "green"}]
        document = {"images": images, "annotations": objects, "categories": categories}
        (folder / "data" / split / "_annotations.coco.json").write_text(json.dumps(document))
    for kind, name in ((2, "green"), (3, "blue")):
        (folder / "labels" / name).mkdir(parents=True)
        for number in range(images_with_labels):
            save(scene(rng, kind)[0], folder / "labels" / name / f"{number}.png")
    (folder / "kinds.tree").write_text(KINDS)
    return folder / "data", folder / "labels", folder / "kinds.tree"


def save(image: np.ndarray, path: Path) -> None:
    Image.fromarray((image.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)).save(path)


def test_the_data_of_a_run(tmp_path: Path) -> None:
    """Labels are indices of the tree's classes; without a tree classes of both are joined."""
    data, labels, tree = small(tmp_path)
    (labels / "green" / "broken.png").write_bytes(b"nothing")
    options: dict[str, Any] = {"task": "detect", "model": "yolo_9000", "image_labels": labels}
    read = read_run_data(complete_config(data, {**options, "options": {"tree": str(tree)}}), None)
    assert read.samples.classes == ("color", "red", "green", "blue")
    assert [sample.labels.tolist() for sample in read.splits.train] == [[1], [2], [1], [2]]
    assert [(each.label, each.width, len(each.boxes)) for each in read.image_labels] == 3 * [(3, 64, 0)] + 3 * [
        (2, 64, 0)
    ]
    assert any("broken.png" in warning for warning in read.warnings)
    assert len(read.trained_splits.train) == 10 and read.trained_splits.val == read.splits.val
    read = read_run_data(complete_config(data, options), None)
    assert read.samples.classes == ("red", "green", "blue")
    assert {sample.label for sample in read.image_labels} == {1, 2}


def test_images_with_boxes_are_repeated_for_four_times_as_many_others(tmp_path: Path) -> None:
    data, labels, _ = small(tmp_path, images_with_labels=17)
    config = complete_config(data, {"task": "detect", "model": "yolo_9000", "image_labels": labels})
    read = read_run_data(config, None)
    assert len(read.image_labels) == 34 and read.repetitions == 3
    assert len(read.trained_splits.train) == 3 * 4 + 34


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    data, labels, tree = small(tmp_path)
    options: dict[str, Any] = {"task": "detect", "model": "yolo_9000", "image_labels": labels}
    with pytest.raises(UsageError, match="--augment mosaic cannot be used with --image-labels"):
        complete_config(data, {**options, "augmentation": "mosaic"})
    with pytest.raises(UsageError, match="--image-labels is for --task detect, not for localize"):
        complete_config(data, {"task": "localize", "image_labels": labels})
    with pytest.raises(DataError, match="no-such-folder"):
        complete_config(data, {**options, "image_labels": tmp_path / "no-such-folder"})
    tree.write_text("red -1\ngreen -1\n")
    config = complete_config(data, {**options, "options": {"tree": str(tree)}})
    with pytest.raises(DataError, match="labels has classes that the model does not know: blue"):
        read_run_data(config, None)
    with pytest.raises(UsageError, match="--image-labels: ssd learns from boxes alone"):
        hubel.train(data, task="detect", model="ssd", image_labels=labels, weights=None, out=tmp_path / "run")
    for file in labels.rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"\.png"):
        read_run_data(complete_config(data, options), None)


@pytest.mark.slow
def test_a_run(tmp_path: Path) -> None:
    """It trains and is scored; its model keeps the tree, and its record of splits has the images with boxes alone."""
    data, labels, tree = small(tmp_path)
    options: dict[str, Any] = {"cfg": CFG, "tree": str(tree)}
    given: dict[str, Any] = {"task": "detect", "model": "yolo_9000", "image_size": 64, "batch": 4, "epochs": 2}
    result = hubel.train(
        data, **given, image_labels=labels, options=options, out=tmp_path / "run", precision="float32", workers=0
    )
    assert result.to_json()["metrics"].keys() >= {"AP", "AP50"}
    model, metadata = hubel.models.load_model(tmp_path / "run" / "best")
    assert isinstance(model, Detector) and metadata.classes == ["color", "red", "green", "blue"]
    assert metadata.options["tree"] == KINDS
    assert hubel.evaluate(tmp_path / "run", data, split="val").metrics.keys() >= {"AP"}
    assert json.loads((tmp_path / "run" / "splits.json").read_text()).keys() == {"train", "val"}


def test_interrupted_and_resumed_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images without boxes too; and what YOLOv2 teaches in the first 12,800 images, of which the resumed run has seen
    some."""
    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no reports
    monkeypatch.setattr("hubel.models.darknet.detector.PRIOR_IMAGES", 6)
    data, labels, tree = small(tmp_path)
    settings: dict[str, Any] = {
        "task": "detect", "model": "yolo_9000", "image_size": 64, "batch": 2, "epochs": 2, "image_labels": labels,
        "options": {"cfg": CFG, "tree": str(tree)}, "precision": "float32", "workers": 0, "augmentation": "crop,flip",
    }  # fmt: skip
    hubel.train(data, out=tmp_path / "whole", **settings)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hubel.training.progress.TrainingDisplay.end_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hubel.train(data, out=tmp_path / "broken", **settings)
    hubel.train(data, out=tmp_path / "broken", resume=True)
    whole, broken = (hubel.models.load_model(tmp_path / name / "last")[0].state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(broken[name], whole[name]) for name in whole)


@pytest.mark.parametrize("mapped", [False, True])
def test_the_classes_of_a_cfg_are_called_as_its_names_are(mapped: bool, tmp_path: Path) -> None:
    """The tree of YOLO9000 has WordNet's numbers; data is labelled with names."""
    data, _, _ = small(tmp_path)
    (tmp_path / "net.cfg").write_text(CFG.replace("classes=4", "classes=4\ntree=net.tree\nmap=net.map"))
    (tmp_path / "net.tree").write_text("n1 -1\nn2 0\nn3 0\nn4 0\n")
    (tmp_path / "net.map").write_text("3\n2\n1\n")
    (tmp_path / "net.names").write_text("blue\ngreen\nred\n" if mapped else "kind\nred\ngreen\nn3\n")
    config = complete_config(data, {"model": str(tmp_path / "net.cfg"), "epochs": 1})
    read = read_run_data(config, None)
    assert read.samples.classes == (("blue", "green", "red") if mapped else ("kind", "red", "green", "n4"))
    assert [sample.labels.tolist() for sample in read.splits.train] == 2 * ([[2], [1]] if mapped else [[1], [2]])
