"""The parts of training, each against torch's or scikit-learn's own, or against arithmetic by hand."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2

from drawn_shapes import write_shapes
from hubel.config import make_config
from hubel.config_file import read_config, write_config
from hubel.data.image_io import read_image
from hubel.data.loader import BatchDataset, EpochSampler, make_dataloader, seed_for
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.transforms.image_transform import ImageTransform, Lighting, MixUpCutMix, check_augmentations
from hubel.errors import DataError, UsageError
from hubel.models import create_model
from hubel.models.base import Classifier, ClassTargets, Detector
from hubel.tasks.classification.decode import top_k
from hubel.tasks.classification.task import imbalance_ratio, inverse_frequency
from hubel.tasks.registry import get_task
from hubel.training import setup
from hubel.training.autotune import CpuContention, ExecutionPlan, choose_execution
from hubel.training.checkpoint import Progress
from hubel.training.finetune import (
    TrainableTop,
    describe_trained,
    enter_training_mode,
    freeze_backbone,
    freeze_below,
    make_optimizer,
    parts_with_parameters,
    plan_phases,
    set_learning_rate,
)
from hubel.training.loop import WeightAverage, rate_factor
from hubel.training.trials import TrialBudget


def scheduled_by_torch(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    expected = scheduled_by_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40), 40)
    assert [rate_factor("cosine", step, 40, 0) for step in range(40)] == pytest.approx(expected, abs=1e-9)


def test_one_cycle_follows_torchs() -> None:
    # torch counts its last step as the lowest rate, one step earlier than we do.
    expected = scheduled_by_torch(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=1000), 1000)
    ours = [rate_factor("one-cycle", step, 1000, 0) for step in range(1000)]
    assert ours == pytest.approx(expected, abs=0.01)
    assert ours[0] == pytest.approx(1 / 25) and max(ours) == pytest.approx(1.0) and np.argmax(ours) == 300


def test_warm_up_rises_in_equal_steps() -> None:
    assert [rate_factor("constant", step, 100, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_loss_is_cross_entropy_by_hand() -> None:
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
    labels = torch.tensor([0, 2])
    log_p = scores.double().numpy() - np.log(np.exp(scores.double().numpy()).sum(1, keepdims=True))
    target = np.eye(3)[[0, 2]] * 0.7 + 0.1  # smoothing 0.3 over three classes
    expected = -(target * log_p).sum(1).mean()
    assert float(classification_loss(scores, labels, 0.3)) == pytest.approx(expected, abs=1e-6)
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]])
    assert float(classification_loss(scores, soft)) == pytest.approx(-(soft.numpy() * log_p).sum(1).mean(), abs=1e-6)


def test_weighted_loss_counts_images_by_their_own_class() -> None:
    torch.manual_seed(0)
    scores, labels, weights = torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 0, 1]), torch.tensor([0.5, 1.0, 3.0])
    plain = nn.functional.cross_entropy(scores, labels, weight=weights)
    torch.testing.assert_close(classification_loss(scores, labels, 0.0, weights), plain)
    rows = nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(classification_loss(scores, rows, 0.0, weights), plain)
    # Szegedy et al. 2016, section 7: the target's share 1 - ε, and ε / classes for every class.
    smoothed = 0.9 * rows + 0.1 / 3
    each = -(smoothed * torch.log_softmax(scores, 1)).sum(1).numpy()
    expected = np.average(each, weights=weights[labels].numpy())
    assert float(classification_loss(scores, labels, 0.1, weights)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_scikit_learns_balanced() -> None:
    labels = [0] * 10 + [1] * 5 + [2] * 1
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert inverse_frequency(labels, 3).numpy() == pytest.approx(expected, rel=1e-6)
    assert imbalance_ratio(labels, 3) == 10 == imbalance_ratio(labels, 5)  # inner classes of a tree have no images


def test_weighted_sampling_draws_classes_alike() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100)
    sampler = EpochSampler(1000, seed=1, shuffle=True, weights=inverse_frequency(labels.tolist(), 2)[labels])
    drawn = torch.tensor([labels[index] for _, index in sampler])
    assert 430 < int(drawn.sum()) < 570  # binomial(1000, 0.5): 4.4 standard deviations


def test_epochs_are_shuffled_by_seed_and_number() -> None:
    sampler = EpochSampler(50, seed=3, shuffle=True)
    first = list(sampler)
    assert sorted(index for _, index in first) == list(range(50)) and first == list(sampler)
    sampler.epoch = 1
    assert [index for _, index in sampler] != [index for _, index in first]
    assert {epoch for epoch, _ in sampler} == {1}


def test_best_classes_are_sorted_and_ties_keep_their_order() -> None:
    scores = top_k(np.array([0.1, 0.4, 0.4, 0.1]), ["a", "b", "c", "d"], 3)
    assert [(score.index, score.name, score.score) for score in scores] == [(1, "b", 0.4), (2, "c", 0.4), (0, "a", 0.1)]


def classification_loss(scores: torch.Tensor, labels: torch.Tensor, *given: Any) -> torch.Tensor:
    """Of a classifier's raw scores, by label smoothing and class weights."""
    (loss,) = tiny().losses(scores, ClassTargets(labels, *given)).values()
    return loss


def tiny() -> Classifier:
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=3, image_size=32)
    assert isinstance(model, Classifier)
    return model


@pytest.mark.parametrize(
    ("where", "learning"),
    [
        ("head", []),
        ("0", []),
        ("0.4", ["stage3", "stage4"]),
        ("1.0", ["stem", "stage1", "stage2", "stage3", "stage4"]),
        ("stage4", ["stage4"]),
        ("stage3.1", ["stage3", "stage4"]),
    ],
)
def test_freezing_from_a_layer_upwards(where: str, learning: list[str]) -> None:
    model = tiny()
    assert freeze_below(model, where) == learning
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    if where == "stage3.1":
        backbone = model.backbone
        assert not any(p.requires_grad for p in backbone.get_submodule("stage3.0").parameters())
        assert all(p.requires_grad for p in backbone.get_submodule("stage3.1").parameters())


def test_the_log_names_few_parts_and_counts_many() -> None:
    model, cfg = tiny(), create_model("yolo_v3_tiny", num_classes=2)
    assert isinstance(cfg, Detector)
    assert describe_trained(model, freeze_below(model, "1.0")) == "the whole network"
    assert describe_trained(model, freeze_below(model, "head")) == "only the head"
    assert describe_trained(model, freeze_below(model, "0.4")) == "the head and stage3, stage4"
    some = freeze_below(cfg, "0.7")
    assert describe_trained(cfg, some) == f"the head and {len(some)} of 11 parts, from {some[0]} on" and len(some) > 5


@pytest.mark.parametrize("where", ["stage9", "1.5", "-0.1"])
def test_wrong_layer_is_named(where: str) -> None:
    with pytest.raises(UsageError, match=where):
        freeze_below(tiny(), where)


def test_what_is_frozen_does_not_move() -> None:
    model = tiny()
    freeze_below(model, "stage4")
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, make_config(data="x", weight_decay=0.5), 0.1)
    enter_training_mode(model, "train")
    for _ in range(2):
        classification_loss(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("backbone")} == {"stage4"}
    assert any("running_mean" in name for name in changed)


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale() -> None:
    model = tiny()
    freeze_below(model, "1.0")
    before = copy.deepcopy(model.state_dict())
    enter_training_mode(model, "frozen")
    classification_loss(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    make_optimizer(model, make_config(data="x"), 0.1).step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("running" in name for name in changed)
    assert any(".norm.weight" in name for name in changed)


def test_parts_count_those_with_weights() -> None:
    assert parts_with_parameters(tiny()) == ["stem", "stage1", "stage2", "stage3", "stage4"]


def test_biases_and_norms_are_not_decayed() -> None:
    model = tiny()
    optimizer = make_optimizer(model, make_config(data="x", weight_decay=0.3), 0.1)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def test_rates_fall_from_part_to_part() -> None:
    model = tiny()
    freeze_below(model, "0.6")
    optimizer = make_optimizer(model, make_config(data="x", layer_decay=0.5), 0.1)
    set_learning_rate(optimizer, 0.2)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    seen = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    expected = {"head": 0.2, "backbone.stage4": 0.1, "backbone.stage3": 0.05, "backbone.stage2": 0.025}
    assert all(rate == pytest.approx(expected[".".join(name.split(".")[: 1 + name.startswith("b")])])
               for name, rate in seen.items())  # fmt: skip
    assert {rate for rate in seen.values()} == {group["lr"] for group in optimizer.param_groups}


def test_frozen_lower_and_upper_are_the_model() -> None:
    model = tiny()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    freeze_below(model, "stage3")
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    lower = freeze_backbone(model, torch.device("cpu"), torch.float32)
    assert lower.parts == 4  # stem, pool, stage1, stage2
    scores = TrainableTop(model, 4).eval()(lower(images))
    assert (scores - model(images)).abs().max() < 1e-4


def test_frozen_lower_takes_images_as_they_come_in_bfloat16_too() -> None:
    model = tiny()
    freeze_below(model, "stage3")
    model.eval()
    images = torch.randn(2, 3, 64, 64)
    lower = freeze_backbone(model, torch.device("cpu"), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):  # as the loop calls it
        maps = lower(images)
    with torch.no_grad():
        expected = nn.Sequential(*list(model.backbone.children())[:4])(images)
    assert maps.dtype == torch.bfloat16
    assert (maps.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_average_of_weights_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, 0.9)
    values, expected = [1.0, 2.0, 4.0], 0.0
    for count, value in enumerate(values):
        nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
        decay = min(0.9, (1 + count) / (10 + count))
        expected = value if count == 0 else decay * expected + (1 - decay) * value
    assert float(average.module.weight.detach()) == pytest.approx(expected)


def test_average_equals_that_of_torch_and_passes_over_what_is_frozen() -> None:
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=3).train()
    assert 0 < len(freeze_below(model, "0.5")) < len(model.backbone)
    enter_training_mode(model, "train")

    def move(average: torch.Tensor, current: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        share = 1 - min(0.99, (1 + int(count)) / (10 + int(count)))
        return average.lerp(current, share) if average.is_floating_point() else current

    ours, torchs = WeightAverage(model, 0.99), AveragedModel(model, avg_fn=move, use_buffers=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 64, 64)).square().sum().backward()
        optimizer.step()
        ours.update_parameters(model)
        torchs.update_parameters(model)
    expected = torchs.state_dict()
    assert ours.state_dict().keys() == expected.keys() and int(ours.n_averaged) == 3
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    assert not torch.equal(ours.module.head.classifier.weight, model.head.classifier.weight)
    frozen = next(p for p in ours.module.parameters() if not p.requires_grad)
    with torch.no_grad():
        next(p for p in model.parameters() if not p.requires_grad).add_(1)
    before = frozen.clone()
    ours.update_parameters(model)
    assert torch.equal(frozen, before)


def test_execution_is_remembered_and_slow_formats_are_not_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hubel.training.autotune.bfloat16_pays", lambda device: False)
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    model = tiny()
    calls = []

    def loss(scores: torch.Tensor) -> torch.Tensor:
        calls.append(scores.dtype)
        return scores.square().mean()

    before = copy.deepcopy(model.state_dict())
    first = choose_execution(model, loss, (2, 3, 32, 32), torch.device("cpu"))
    assert first.precision == "float32" and set(calls) == {torch.float32}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    count = len(calls)
    assert choose_execution(model, loss, (2, 3, 32, 32), torch.device("cpu")) == first
    assert len(calls) == count


def test_what_is_timed_has_the_auxiliary_classifiers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timed = []

    def note(network, objective, *_: object) -> ExecutionPlan:
        timed.append((network, objective))
        return ExecutionPlan("float32", True, "not measured")

    monkeypatch.setattr(setup, "choose_execution", note)
    model = create_model("googlenet", num_classes=3)
    config = make_config(data="x", model="googlenet", weights=None)
    targets = torch.zeros(2, dtype=torch.int64)
    minimized = setup._objective(model, ClassTargets(targets))
    setup._execution(tmp_path, model, minimized, (2, 3, 32, 32), torch.device("cpu"), config, TrialBudget())
    ((network, objective),) = timed
    scores = network(torch.randn(2, 3, 32, 32))
    of_head, lower, upper = (nn.functional.cross_entropy(each, targets) for each in scores.values())
    torch.testing.assert_close(objective(scores), of_head + 0.3 * (lower + upper))


def test_pixels_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    root = write_shapes(tmp_path, {"disc": 6})
    paths = sorted(root.rglob("*.png"))
    pixels = ImageTransform(
        Preprocessing(24, 24), ("rotation", "crop", "flip", "contrast", "color", "lighting", "randaugment")
    )
    images = BatchDataset([Sample(path, 0) for path in paths], pixels, seed=5)
    seen = []
    for workers in (0, 2):
        torch.manual_seed(workers)  # the surrounding generator must not matter
        sampler = EpochSampler(6, seed=5, shuffle=True)
        sampler.epoch = 2
        seen.append(torch.cat([batch.pixels for batch in make_dataloader(images, sampler, 2, workers)]))
    assert torch.equal(seen[0], seen[1])
    sampler = EpochSampler(6, seed=5, shuffle=True)
    sampler.epoch = 3
    other = torch.cat([batch.pixels for batch in make_dataloader(images, sampler, 2, 0)])
    assert not torch.equal(other.sum((1, 2, 3)).sort().values, seen[0].sum((1, 2, 3)).sort().values)


def test_unreadable_image_is_left_out_of_its_batch(tmp_path: Path) -> None:
    root = write_shapes(tmp_path, {"disc": 3})
    paths = sorted(root.rglob("*.png"))
    paths[1].write_bytes(b"gone")
    samples = [Sample(path, label) for label, path in enumerate(paths)]
    images = BatchDataset(samples, ImageTransform(Preprocessing(8, 8)), seed=0)
    batch = next(iter(make_dataloader(images, EpochSampler(3, 0, shuffle=False), 3, 0)))
    assert batch.labels.tolist() == [0, 2] and batch.indices.tolist() == [0, 2] and len(batch.pixels) == 2


def test_augmentations_change_what_they_say(tmp_path: Path) -> None:
    path = next(write_shapes(tmp_path, {"disc": 1}).rglob("*.png"))
    image = read_image(path)
    plain = Preprocessing(32, 32, crop_fraction=1.0)
    flips = ImageTransform(plain, ("flip",))
    flipped = [flips.augment(flips.prepare(image), seed) for seed in range(20)]
    original = np.asarray(image)
    assert all(np.array_equal(p, original) or np.array_equal(p, original[:, ::-1]) for p in flipped)
    assert len({p.tobytes() for p in flipped}) == 2
    assert np.array_equal(ImageTransform(plain).prepare(image), original)
    changes = ImageTransform(Preprocessing(16, 16, channels=1), ("crop", "rotation", "contrast"))
    grey = changes.augment(changes.prepare(image), 0)
    assert grey.shape == (16, 16, 1) and grey.dtype == np.uint8


def lighting_shifts(mode: str, draws: int) -> np.ndarray:
    """What PCA lighting adds to a pixel of middle grey (draws, channels)."""
    torch.manual_seed(0)
    image, lighting = Image.new(mode, (1, 1), 128 if mode == "L" else (128, 128, 128)), Lighting()
    return np.array([np.asarray(lighting(image), float).ravel() - 128 for _ in range(draws)])


def test_lighting_varies_as_imagenets_colours() -> None:
    # MXNet's PCALighting has the same constants for pixels in 0..255; a deviation of 0.1 on each component.
    eigenvalues = np.array([55.46, 4.794, 1.148])
    eigenvectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = eigenvectors @ np.diag((0.1 * eigenvalues) ** 2) @ eigenvectors.T
    shifts = lighting_shifts("RGB", 4000)
    assert np.abs(shifts.mean(axis=0)).max() < 0.2
    covariance = np.cov(shifts.T) - np.eye(3) / 12  # rounding adds the variance of a uniform error
    assert covariance == pytest.approx(expected, rel=0.05)
    grey = lighting_shifts("L", 4000)
    assert grey.std() == pytest.approx(np.sqrt(expected.mean() + 1 / 12), rel=0.05)
    assert grey[:50, 0] == pytest.approx(shifts[:50].mean(axis=1), abs=1)  # the same draws


def test_lighting_shifts_all_pixels_alike_up_to_black_and_white() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    torch.manual_seed(4)
    alpha = 0.1 * torch.randn(3).double().numpy()
    expected_shift = 255 * (
        alpha[0] * 0.2175 * np.array([-0.5675, -0.5808, -0.5836])
        + alpha[1] * 0.0188 * np.array([0.7192, -0.0045, -0.6948])
        + alpha[2] * 0.0045 * np.array([0.4009, -0.8140, 0.4203])
    )
    assert np.abs(expected_shift).min() > 1
    changed = ImageTransform(Preprocessing(40, 50, crop_fraction=1.0), ("lighting",)).augment(pixels, 4)
    assert np.array_equal(changed, np.clip(np.rint(pixels + expected_shift), 0, 255).astype(np.uint8))


def test_alexnets_preset_shows_windows_of_the_central_square() -> None:
    # A gradient tells each pixel's place: 256 columns of the central square, of which the network sees 224.
    columns = np.clip(np.arange(-40, 296), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.repeat(np.tile(columns, (256, 1))[:, :, None], 3, axis=2))
    windows = ImageTransform(Preprocessing(224, 224), ("window",))
    seen = [windows.augment(windows.prepare(image), seed) for seed in range(200)]
    starts = {int(pixels[0, 0, 0]) for pixels in seen}
    assert min(starts) >= 0 and max(starts) <= 32 and len(starts) > 25
    assert all(np.array_equal(p[5, :, 1], int(p[0, 0, 0]) + np.arange(224)) for p in seen)
    assert check_augmentations(["alexnet"]) == ("window", "flip", "lighting")


def kept_epochs(accuracies: Sequence[float], images: int) -> list[int]:
    """The epoch whose weights are kept after each, of as many validation images."""
    task, progress, kept = get_task("classify"), Progress(), []
    for epoch, accuracy in enumerate(accuracies, 1):
        row = {"epoch": epoch, "val_top1": accuracy, "val_loss": 1.0}
        progress.add(row, task.monitor, lambda best: task.choice_margin(best, images))
        kept.append(progress.best_epoch)
    return kept


def test_the_last_epoch_within_a_standard_error_of_the_best_is_kept() -> None:
    # The standard error of 0.9 is 0.03 with 100 images and 0.003 with 10,000.
    accuracies = [0.5, 0.9, 0.88, 0.8, 0.899, 0.86]
    assert kept_epochs(accuracies, 100) == [1, 2, 3, 3, 5, 5]
    assert kept_epochs(accuracies, 10_000) == [1, 2, 2, 2, 5, 5]
    assert kept_epochs([0.9, 0.895, 0.891, 0.88, 0.87], 100)[-1] == 4  # of the best, not of the one kept before
    assert kept_epochs([1.0, 1.0, 0.99], 100) == [1, 1, 1]


def test_patience_counts_from_the_best_epoch_not_from_the_one_that_is_kept() -> None:
    task, progress = get_task("classify"), Progress()
    stopped = []
    for epoch, accuracy in enumerate([0.5, 0.9, 0.89, 0.89, 0.89], 1):
        progress.add({"epoch": epoch, "val_top1": accuracy, "val_loss": 1.0}, task.monitor, lambda best: 0.05)
        stopped.append(progress.should_stop_early(3, task.monitor))
    assert stopped == [False, False, False, False, True] and progress.best_epoch == 5


def test_random_erasing_gives_a_box_the_mean_colour() -> None:
    size = Preprocessing(60, 40, mean=(100.0, 150.0, 200.0), crop_fraction=1.0)
    erasing, pixels = ImageTransform(size, ("erasing",)), np.zeros((60, 40, 3), np.uint8)
    areas = []
    for seed in range(400):
        changed = erasing.augment(pixels, seed)
        rows, columns = np.nonzero(changed.any(axis=2))
        if len(rows) == 0:
            continue
        box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == (100, 150, 200)).all() and len(rows) == box.shape[0] * box.shape[1]
        assert 0.25 < box.shape[1] / box.shape[0] < 4  # 0.3 to 3.3, rounded to pixels
        areas.append(len(rows) / 2400)
    assert 160 < len(areas) < 240
    assert min(areas) > 0.01 and max(areas) < 0.36 and np.mean(areas) == pytest.approx(0.175, abs=0.03)
    grey = ImageTransform(Preprocessing(60, 40, channels=1, mean=(90.0,), std=(1.0,)), ("erasing",))
    assert {int(value) for seed in range(20) for value in np.unique(grey.augment(pixels[:, :, :1], seed))} == {0, 90}


@pytest.mark.parametrize(
    ("name", "theirs"), [("trivialaugment", v2.TrivialAugmentWide()), ("augmix", v2.AugMix())], ids=lambda x: str(x)[:7]
)
def test_policies_are_torchvisions(name: str, theirs: v2.Transform) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    changes = ImageTransform(Preprocessing(40, 50, crop_fraction=1.0), (name,))
    for seed in range(5):
        changed = changes.augment(pixels, seed)
        torch.manual_seed(seed)
        assert np.array_equal(changed, np.asarray(theirs(Image.fromarray(pixels))))


def test_cutmix_labels_are_the_areas() -> None:
    images = torch.zeros(4, 1, 20, 20)
    images[0], images[1], images[2], images[3] = 0, 1, 2, 3
    torch.manual_seed(1)
    blend = MixUpCutMix(("cutmix",), 4)
    blended, targets = next((x, y) for x, y in (blend(images, torch.arange(4)) for _ in range(20)) if y.ndim == 2)
    for image, target in zip(blended, targets, strict=True):
        areas = [float((image == label).float().mean()) for label in range(4)]
        assert areas == pytest.approx(target.tolist(), abs=1e-5)


def test_mixup_labels_are_the_shares() -> None:
    images = torch.eye(4).reshape(4, 4, 1, 1).expand(4, 4, 2, 2)
    torch.manual_seed(0)
    blend = MixUpCutMix(("mixup",), 4)
    blended, targets = next((x, y) for x, y in (blend(images, torch.arange(4)) for _ in range(20)) if y.ndim == 2)
    assert torch.allclose(blended[:, :, 0, 0], targets, atol=1e-6)


def test_seeds_differ_by_every_part() -> None:
    seeds = {seed_for(a, b, c) for a in (0, 1) for b in ("order", "pixels") for c in range(10)}
    assert len(seeds) == 40 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"split": "0.5,0.5"}, "split"),
        ({"split": "0.5,0.2,0.1"}, "split"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_settings_are_named(values: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        make_config(data="x", **values)


@pytest.mark.parametrize("task", ["classify", "localize", "detect"])
def test_wrong_augmentations_are_named(task: str) -> None:
    with pytest.raises(UsageError, match="blur"):
        get_task(task).resolve_config(make_config(data="x", task=task, augmentation="flip,blur"))


def test_settings_survive_the_file(tmp_path: Path) -> None:
    given = make_config(data="flowers", split="0.6,0.2,0.2", augmentation="flip,crop", epochs=3)
    config = get_task("classify").resolve_config(given).resolved(True)
    assert config.augmentation == ("crop", "flip")  # in the order of application
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config
    (tmp_path / "config.yaml").write_text("data: [")
    with pytest.raises(DataError, match="config.yaml"):
        read_config(tmp_path / "config.yaml")


def test_phases_share_the_epochs() -> None:
    phases = plan_phases(make_config(data="x", epochs=10, head_epochs=2, learning_rate=1e-3, unfreeze_from="0.4"))
    assert [(p.name, p.first_epoch, p.last_epoch, p.trainable_from) for p in phases] == [
        ("head", 1, 2, "head"),
        ("fine-tune", 3, 10, "0.4"),
    ]
    assert [p.name for p in plan_phases(make_config(data="x", epochs=2, head_epochs=5))] == ["head"]
    scratch = make_config(data="x", weights=None).resolved(False)
    assert [(p.name, p.trainable_from) for p in plan_phases(scratch)] == [("train", "1.0")]


def test_other_work_on_the_machine_is_seen() -> None:
    watch = CpuContention()
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(1.0)  # asleep, this process takes nothing of it
        share = watch.share()
    finally:
        worker.kill()
        worker.wait()
    assert share > 0.5 / (psutil.cpu_count() or 1)


def test_on_a_busy_machine_the_processes_own_seconds_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = {"wall": 0.0, "computed": 0.0}
    clocks = {"perf_counter": lambda: clock["wall"], "process_time": lambda: clock["computed"]}
    monkeypatch.setattr("hubel.training.autotune.time", SimpleNamespace(**clocks))

    class Slow(nn.Module):
        """Contiguous images wait, as for a core that somebody else has; channels-last ones compute."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            clock["wall"] += 0.05 if images.is_contiguous() else 0.02
            clock["computed"] += 0.001 if images.is_contiguous() else 0.02
            return images.mean().requires_grad_()

    for share, channels_last in ((0.9, False), (0.0, True)):
        monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / str(share)))
        monkeypatch.setattr(CpuContention, "share", lambda self, share=share: share)
        chosen = choose_execution(Slow(), lambda mean: mean, (2, 3, 8, 8), torch.device("cpu"), "float32")
        assert chosen.channels_last is channels_last
        assert ("busy" in chosen.reason) is (share > 0.5)
