"""Oversampling in feature space: against imbalanced-learn itself, and as a whole run."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from imblearn.over_sampling import SMOTE

from drawn_shapes import write_shapes
from hubel.config import make_config
from hubel.data.loader import BatchDataset, EpochSampler, make_dataloader, seed_for
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.transforms.image_transform import ImageTransform
from hubel.errors import DataError, MissingExtraError, UsageError
from hubel.models import create_model, load_model
from hubel.models.base import Classifier
from hubel.training.feature_cache import Features, compute_features, feature_batches, neighbours_for, with_smote
from hubel.training.finetune import freeze_backbone, freeze_below, plan_phases
from hubel.training.train import train

CLASSES = ("cross", "disc", "frame")


def random_features(counts: tuple[int, ...], shape: tuple[int, ...] = (6, 1, 1)) -> Features:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    maps = torch.randn(len(labels), *shape, generator=torch.Generator().manual_seed(2)) + labels[:, None, None, None]
    return Features(maps[order], labels[order])


@pytest.mark.parametrize(("counts", "neighbours"), [((20, 9, 7), 5), ((20, 4, 11), 3), ((9, 9, 2), 1)])
def test_features_are_those_that_imbalanced_learn_gives(counts: tuple[int, ...], neighbours: int) -> None:
    features = random_features(counts, (3, 2, 2))
    more = with_smote(features, CLASSES, seed=4)
    smote = SMOTE(k_neighbors=neighbours, random_state=seed_for(4, "smote") % 2**32)
    rows, labels = smote.fit_resample(features.maps.numpy().reshape(-1, 12), features.labels.numpy())
    assert np.array_equal(more.maps.flatten(1).numpy(), rows) and np.array_equal(more.labels.numpy(), labels)
    assert np.bincount(labels).tolist() == [max(counts)] * 3
    assert torch.equal(more.maps[: len(features.maps)], features.maps)


def test_new_features_lie_between_two_of_their_class() -> None:
    """The paper's definition, by arithmetic: on the line from one example to one of its nearest neighbours."""
    features = random_features((12, 5))
    more = with_smote(features, CLASSES[:2], seed=0)
    own = features.maps[features.labels == 1].flatten(1).double()
    for row in more.maps[len(features.maps) :].flatten(1).double():
        share = [((row - a) @ (b - a) / ((b - a) @ (b - a)), a, b) for a in own for b in own if not torch.equal(a, b)]
        assert min(float((a + t * (b - a) - row).abs().max()) for t, a, b in share if 0 <= t <= 1) < 1e-5


def test_class_with_a_single_image_is_named() -> None:
    with pytest.raises(DataError, match="class disc has 1 training image; .*two or more\n.*--balance sampling"):
        neighbours_for([0, 0, 1, 2, 2], CLASSES)


def test_computed_features_are_what_the_dense_layer_sees(tmp_path: Path) -> None:
    """The pooled maps of torch's own mean, image by image, and the scores of the whole network."""
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=3, image_size=32)
    assert isinstance(model, Classifier)
    model.eval()
    paths = sorted(write_shapes(tmp_path, {"disc": 5}).rglob("*.png"))
    preprocessing = Preprocessing(32, 32)
    samples = [Sample(path, label) for path, label in zip(paths, [0, 1, 2, 1, 0], strict=True)]
    images = BatchDataset(samples, ImageTransform(preprocessing), seed=0)
    loader = make_dataloader(images, EpochSampler(5, 0, shuffle=False), 2, 0)
    freeze_below(model, "head")
    lower = freeze_backbone(model, torch.device("cpu"), torch.float32)
    features = compute_features(loader, preprocessing, lower, model.head, Accelerator(cpu=True))
    assert features.maps.shape == (5, 512, 1, 1) and features.labels.tolist() == [0, 1, 2, 1, 0]
    pixels = torch.cat([preprocessing.normalize(batch.pixels) for batch in loader])
    with torch.no_grad():
        expected = model.backbone(pixels).mean((2, 3))
        assert (features.maps.flatten(1) - expected).abs().max() < 1e-4
        assert (model.head(features.maps) - model(pixels)).abs().max() < 1e-4


def test_batches_of_features_are_shuffled_like_images() -> None:
    features = random_features((7, 4))
    sampler = EpochSampler(11, seed=3, shuffle=True)
    sampler.epoch = 2
    expected = [index for _, index in sampler]
    loaded = list(feature_batches(features, sampler, 4, training=True))
    assert torch.cat([batch.indices for batch in loaded]).tolist() == expected[:8]
    assert all(torch.equal(batch.pixels, features.maps[batch.indices]) for batch in loaded)
    assert all(torch.equal(batch.labels, features.labels[batch.indices]) for batch in loaded)
    assert [len(b.labels) for b in feature_batches(features, sampler, 32, training=True)] == [11]


def test_smote_trains_the_head_alone_unless_asked() -> None:
    plain = make_config(data="x", balance="smote", augmentation="none").resolved(has_weights=True)
    assert [(phase.name, phase.epochs) for phase in plan_phases(plain)] == [("head", 17)]
    config = make_config(data="x", balance="smote", unfreeze_from="0", epochs=5).resolved(has_weights=True)
    assert [(phase.name, phase.epochs) for phase in plan_phases(config)] == [("head", 3), ("fine-tune", 2)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18's random weights stand for published ones: a random backbone tells the shapes apart well enough."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(create_model("resnet18", num_classes=10).state_dict(), path)
    return path


def run(data: Path, out: Path, weights: Path, **changes):
    settings = {"model": "resnet18", "image_size": 32, "epochs": 4, "batch": 16, "augmentation": "none"}
    settings |= {"precision": "float32", "workers": 0, "average": 0.0, "balance": "smote"}
    return train(data, out=out, weights=str(weights), **{**settings, **changes})


def test_a_skewed_run_with_smote(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the head is given is counted; an interrupted run, resumed, ends with the same weights to the bit."""
    data = write_shapes(tmp_path / "data", {"cross": 32, "disc": 8, "frame": 12})
    result = run(data, tmp_path / "run", weights)
    output = capsys.readouterr().err
    assert output.count("SMOTE") == 1 and "every class has 24" in output and "computed once" in output

    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no more reports
    seen: Counter[int] = Counter()

    def counted(features: Features, sampler: EpochSampler, batch: int, training: bool, *processes: Any):
        if training:
            seen.update(features.labels.tolist())
        return feature_batches(features, sampler, batch, training, *processes)

    monkeypatch.setattr("hubel.training.feature_cache.feature_batches", counted)
    finished = []

    def interrupt(self: object, row: dict, watched: dict, better: bool) -> None:
        finished.append(row["epoch"])
        if finished == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr("hubel.training.progress.TrainingDisplay.end_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "broken", weights)
    again = train(data, out=tmp_path / "broken", resume=True)
    assert finished == [1, 2, 3, 4]
    assert seen == {0: 48, 1: 48, 2: 48}  # 24 of each class, both times

    first, second = (load_model(r.folder / "last")[0].state_dict() for r in (result, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    before = torch.load(weights)
    assert all(torch.equal(value, before[name]) for name, value in first.items() if name.startswith("backbone."))
    rows = list(csv.DictReader((result.folder / "metrics.csv").open()))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_what_smote_cannot_be_used_with_is_refused_before_a_run_begins(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_shapes(tmp_path / "data", {"cross": 12, "disc": 6})
    with pytest.raises(UsageError, match="--augment crop,flip.*\n.*--augment none"):
        run(data, tmp_path / "run", weights, augmentation="crop,flip")
    with pytest.raises(UsageError, match="stage4 would be trained.*\n.*--unfreeze-from 0"):
        run(data, tmp_path / "run", weights, head_epochs=1)
    with pytest.raises(UsageError, match="stem, .*would be trained"):
        train(data, out=tmp_path / "run", model="resnet18", weights=None, augmentation="none", balance="smote")
    single = write_shapes(tmp_path / "single", {"cross": 12, "disc": 1})
    with pytest.raises(DataError, match="class disc has 1 training image"):
        run(single, tmp_path / "run", weights)
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(MissingExtraError, match=r"hubel\[imbalance\]"):
        run(data, tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


def test_head_on_unchanged_images_learns_from_features_computed_once(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same figures as from the images themselves; the same to the bit after an interruption."""
    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no reports
    data = write_shapes(tmp_path / "data", {"cross": 30, "disc": 9, "frame": 12})
    settings = {"balance": "sampling", "epochs": 4, "head_epochs": 3, "unfreeze_from": "stage4", "average": 0.9}
    once = run(data, tmp_path / "once", weights, **settings)
    assert capsys.readouterr().err.count("features are computed once and cached in memory") == 1
    asked = run(data, tmp_path / "asked", weights, **settings, augmentation="flip,mixup", cache_features=True)
    assert "features without random changes are computed once" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(
            "hubel.training.feature_cache.allocate_block", lambda size, expected, processes: (None, "no room")
        )
        images = run(data, tmp_path / "images", weights, **settings)
    assert "features are computed in every epoch: no room" in capsys.readouterr().err
    rows = [figures(each.folder) for each in (once, images, asked)]
    for epoch in range(4):
        assert rows[0][epoch] == pytest.approx(rows[1][epoch], abs=2e-3)
    for epoch in range(3):
        assert rows[0][epoch] == pytest.approx(rows[2][epoch], abs=1e-5)

    def interrupt(self: object, row: dict, watched: dict, better: bool) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hubel.training.progress.TrainingDisplay.end_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "broken", weights, **settings)
    again = train(data, out=tmp_path / "broken", resume=True)
    assert figures(again.folder) == rows[0]


def figures(folder: Path) -> list[list[float]]:
    """Losses and accuracies of each epoch."""
    names = ("train_loss", "train_top1", "val_loss", "val_top1")
    return [[float(row[name]) for name in names] for row in csv.DictReader((folder / "metrics.csv").open())]


def test_cached_features_want_a_phase_of_the_head_alone(weights: Path, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", {"cross": 4, "disc": 4})
    with pytest.raises(UsageError, match="--cache-features is for epochs in which only the head is trained"):
        run(data, tmp_path / "run", weights, balance="none", head_epochs=0, cache_features=True)
    assert not (tmp_path / "run").exists()
