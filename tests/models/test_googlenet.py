"""GoogLeNet against torchvision's on the same weights and the paper's table 1; how auxiliary classifiers learn."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.googlenet import GoogLeNet, GoogLeNetOutputs, Inception, InceptionAux

from drawn_shapes import write_shapes
from hubel.config import make_config
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError
from hubel.models import architecture, create_model, load_model
from hubel.models.base import Classifier, ClassTargets
from hubel.training.finetune import TrainableTop, enter_training_mode, freeze_backbone, freeze_below
from hubel.training.train import make_model, train
from hubel.weights.key_mapping import rename
from reference_networks import largest_difference, with_live_statistics


def torchvisions(**options: object) -> nn.Module:
    """torchvision's network with auxiliary classifiers, in evaluation mode."""
    return with_live_statistics(GoogLeNet(aux_logits=True, init_weights=False, **options))


def with_weights_of(theirs: nn.Module, name: str = "googlenet_bn") -> Classifier:
    """Ours with the weights of a network that has torchvision's names, in evaluation mode."""
    ours = create_model(name).eval()
    ours.load_state_dict(rename(theirs.state_dict(), "googlenet_bn").state)
    return ours


def all_scores(theirs: nn.Module, images: Tensor) -> GoogLeNetOutputs:
    """torchvision hands out auxiliary scores in training mode only; its layers stay in evaluation mode here."""
    theirs.training = True
    outputs = theirs(images)
    theirs.training = False
    return outputs


def assert_same_scores(ours: Classifier, theirs: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        scores, lower, upper = ours.training_outputs(images).values()
        expected = all_scores(theirs, images)
        assert torch.equal(ours(images), scores)
    pairs = ((scores, expected.logits), (lower, expected.aux_logits1), (upper, expected.aux_logits2))
    for found, reference in pairs:
        assert reference.std() > 0.05
        assert largest_difference(found, reference) < 1e-4


def test_scores_equal_torchvisions() -> None:
    theirs = torchvisions()
    ours = with_weights_of(theirs)
    for size in (64, 75):
        assert_same_scores(ours, theirs, torch.randn(2, 3, size, size))


class PlainConv(nn.Module):
    """A convolution with biases and ReLU, for torchvision's ``blocks``."""

    def __init__(self, in_channels: int, out_channels: int, **options: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, **options)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.conv(maps))


class PapersModule(Inception):
    """With the 5×5 that torchvision lacks."""

    def __init__(self, in_channels: int, *columns: int) -> None:
        super().__init__(in_channels, *columns, conv_block=PlainConv)
        self.branch3[1] = PlainConv(columns[3], columns[4], kernel_size=5, padding=2)


class PapersAuxiliary(InceptionAux):
    """With the paper's pooling, whose 4×4 the adaptive one leaves as they are."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(in_channels, num_classes, PlainConv, dropout)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(functional.avg_pool2d(maps, 5, stride=3))


def test_the_papers_network_equals_torchvisions_wiring_with_the_papers_parts() -> None:
    torch.manual_seed(0)
    theirs = GoogLeNet(init_weights=False, blocks=[PlainConv, PapersModule, PapersAuxiliary]).eval()
    lrn = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)  # torch divides α by the five maps
    theirs.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():  # strong enough for the normalization to matter
            fan_in = parameter[0].numel()
            parameter.normal_(std=0.1 if name.endswith("bias") else (3 / fan_in) ** 0.5)
    ours = with_weights_of(theirs, "googlenet")
    theirs.maxpool1 = nn.Sequential(theirs.maxpool1, lrn)
    theirs.conv3 = nn.Sequential(theirs.conv3, lrn)
    images = 20 * torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = theirs.maxpool1[0](theirs.conv1(images))
        assert (lrn(before) / (before * 2**-0.75)).nanmean() < 0.95
    assert_same_scores(ours, theirs, images)


# Table 1: output, then parameters and operations as printed.
TABLE = {
    "stem": ((64, 112, 112), "2.7K", "34M"),
    "pool1": ((64, 56, 56), "", ""),
    "conv2": ((192, 56, 56), "112K", "360M"),
    "pool2": ((192, 28, 28), "", ""),
    "inception3a": ((256, 28, 28), "159K", "128M"),
    "inception3b": ((480, 28, 28), "380K", "304M"),
    "pool3": ((480, 14, 14), "", ""),
    "inception4a": ((512, 14, 14), "364K", "73M"),
    "inception4b": ((512, 14, 14), "437K", "88M"),
    "inception4c": ((512, 14, 14), "463K", "100M"),
    "inception4d": ((528, 14, 14), "580K", "119M"),
    "inception4e": ((832, 14, 14), "840K", "170M"),
    "pool4": ((832, 7, 7), "", ""),
    "inception5a": ((832, 7, 7), "1072K", "54M"),
    "inception5b": ((1024, 7, 7), "1388K", "71M"),
}
# Where the rows' own channels give something else: weights in units of 1024, and multiplications in millions.
SLIPS = {
    "stem": (9.19, 118.0),  # printed is a separable convolution with 8 filters a channel
    "inception4a": (366.75, None),
    "inception4c": (497.5, None),
    "inception4d": (590.5, None),
    "inception4e": (847.0, None),
    "inception5a": (1018.0, 51.1),
    "inception5b": (1409.0, None),
}


def test_sizes_parameters_and_multiplications_are_those_of_table_1() -> None:
    model = create_model("googlenet").eval()
    signal = torch.zeros(1, 3, 224, 224)
    total = 0
    for (name, part), (row, (output, weights, operations)) in zip(
        model.backbone.named_children(), TABLE.items(), strict=True
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            signal = part(signal)
        assert (name, tuple(signal.shape[1:])) == (row, output)
        computed = sum(p.numel() for p in part.parameters() if p.ndim > 1) / 1024
        multiplications = counter.get_total_flops() / 2e6
        total += multiplications
        if weights:
            slip = SLIPS.get(name, (None, None))
            expected = (float(weights[:-1]), float(operations[:-1]))
            # A printed figure is within 1 of the computed one: the paper rounds now up, now down.
            assert computed == pytest.approx(slip[0] or expected[0], abs=0.01 if slip[0] else 1.05), name
            assert multiplications == pytest.approx(slip[1] or expected[1], abs=0.05 if slip[1] else 0.7), name
            for wrong, right in zip(expected, slip, strict=True):
                assert right is None or abs(wrong - right) > 2  # a slip is more than rounding
    separable = 7 * 7 * 3 * 8 + 3 * 8 * 64
    assert (round(separable / 1000, 1), round(separable * 112 * 112 / 1e6)) == (2.7, 34)
    assert sum(p.numel() for p in model.head.parameters() if p.ndim > 1) / 1024 == 1000  # printed 1000K
    # Section 1: "1.5 billion multiply-adds", with the stem as the table counts it.
    assert total + 1.024 - SLIPS["stem"][1] + 34 == pytest.approx(1500, abs=5)


@pytest.mark.parametrize(
    ("name", "alone", "whole"), [("googlenet", 6998552, 13378280), ("googlenet_bn", 6624904, 13004888)]
)
def test_parameters_with_and_without_auxiliary_classifiers(name: str, alone: int, whole: int) -> None:
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    assert count(create_model(name, auxiliary=False)) == alone
    assert count(create_model(name)) == whole
    if name == "googlenet_bn":
        assert count(GoogLeNet(aux_logits=False, init_weights=False)) == alone
        assert torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.meta["num_params"] == alone
        assert count(GoogLeNet(aux_logits=True, init_weights=False)) == whole


def test_depth_is_the_number_of_layers_with_weights_on_the_longest_path() -> None:
    for name in ("googlenet", "googlenet_bn"):
        model = create_model(name)
        modules = [part for key, part in model.backbone.named_children() if key.startswith("inception")]
        longest = [max(sum(p.ndim == 4 for p in b.parameters()) for b in m.branches.values()) for m in modules]
        outside = sum(p.ndim == 4 for key, p in model.backbone.named_parameters() if not key.startswith("inception"))
        assert architecture(name).depth == outside + sum(longest) + 1 == 22


def test_pixels_from_minus_1_to_1_are_torchvisions_transformed_input() -> None:
    """Its published weights come with ``transform_input=True``, upon ImageNet's mean and deviation."""
    theirs = torchvisions(transform_input=True)
    ours = with_weights_of(theirs)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    usual = Preprocessing(64, 64, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    plain = Preprocessing(64, 64, mean=(127.5,) * 3, std=(127.5,) * 3)
    with torch.no_grad():
        assert largest_difference(ours(plain.normalize(pixels)), theirs(usual.normalize(pixels))) < 1e-4


def test_a_file_with_or_without_auxiliary_classifiers_loads(tmp_path: Path) -> None:
    theirs = torchvisions(num_classes=10)
    images = torch.randn(2, 3, 64, 64)
    torch.save(theirs.state_dict(), tmp_path / "whole.pth")
    assert_same_scores(create_model("googlenet_bn", weights=tmp_path / "whole.pth").eval(), theirs, images)
    bare = {key: tensor for key, tensor in theirs.state_dict().items() if not key.startswith("aux")}
    torch.save(bare, tmp_path / "bare.pth")
    ours = create_model("googlenet_bn", weights=tmp_path / "bare.pth").eval()
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4
    assert ours.auxiliary["inception4a"].classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    without = create_model("googlenet_bn", weights=tmp_path / "whole.pth", auxiliary=False).eval()
    assert not without.auxiliary
    with torch.no_grad():
        assert largest_difference(without(images), theirs(images)) < 1e-4


def test_weights_start_as_hes_by_the_fan_in() -> None:
    torch.manual_seed(0)
    model = create_model("googlenet")
    for part, fan_in in (("stem", 3 * 49), ("inception4e.branches.3x3.1", 160 * 9), ("inception5b.branches.1x1", 832)):
        unit = model.get_submodule(f"backbone.{part}.conv")
        assert unit.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
        assert not unit.bias.any()
    auxiliary = model.auxiliary["inception4d"]
    assert auxiliary.dense.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.03)
    for classifier in (model.head.classifier, auxiliary.classifier):
        assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.03)


def test_options_that_cannot_be_are_named() -> None:
    with pytest.raises(ModelError, match="kernel=4"):
        create_model("googlenet", kernel=4)
    with pytest.raises(ModelError, match="auxiliary_pool='7x7'"):
        create_model("googlenet", auxiliary_pool="7x7")


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def test_a_training_steps_loss_and_gradients_equal_torchvisions() -> None:
    """Theirs by hand: the sum of the three losses, 0.3 of the auxiliary ones."""
    theirs = without_dropout(torchvisions(num_classes=5))
    ours = create_model("googlenet_bn", num_classes=5)
    ours.load_state_dict(rename(theirs.state_dict(), "googlenet_bn").state)
    without_dropout(ours)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 3, 1, 3])
    theirs.train()
    logits, aux2, aux1 = theirs(images)
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    expected += 0.3 * functional.cross_entropy(aux1, labels, label_smoothing=0.1)
    expected += 0.3 * functional.cross_entropy(aux2, labels, label_smoothing=0.1)
    expected.backward()

    upper = TrainableTop(ours, 0)
    enter_training_mode(upper, "train")
    loss = sum(ours.losses(upper(images), ClassTargets(labels, label_smoothing=0.1)).values())
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    renamed = rename(gradients, "googlenet_bn").state
    own = dict(ours.named_parameters())
    assert set(renamed) == set(own)
    for name, gradient in renamed.items():
        assert largest_difference(own[name].grad, gradient) < 1e-4 * max(1, gradient.abs().max().item()), name


@pytest.mark.parametrize(
    ("trainable_from", "learning"),
    [("1.0", 2), ("inception4a", 2), ("inception4b", 1), ("inception4d", 1), ("inception4e", 0), ("head", 0)],
)
def test_auxiliary_classifiers_learn_where_the_part_they_read_learns(trainable_from: str, learning: int) -> None:
    model = create_model("googlenet_bn", num_classes=3)
    freeze_below(model, trainable_from)
    lower = freeze_backbone(model, torch.device("cpu"), torch.float32)
    upper = TrainableTop(model, lower.parts)
    enter_training_mode(upper, "train")
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        outputs = upper(lower(images))
        assert (1 if isinstance(outputs, Tensor) else len(outputs)) == 1 + learning
        model.eval()
        scores = upper.eval()(lower(images))
        assert largest_difference(scores, model(images)) < 1e-4


def quick_settings(tmp_path: Path, **changes: object) -> dict[str, object]:
    data = write_shapes(tmp_path / "data", {"cross": 8, "disc": 8})
    chosen = {"model": "googlenet_bn", "image_size": 32, "epochs": 1, "batch": 8, "precision": "float32", "workers": 0}
    return {"data": data, "weights": None, "average": 0.0, "seed": 3, **chosen, **changes}


def moved(before: Classifier, folder: Path) -> set[str]:
    """Names of the parameters that ``folder``'s last model has otherwise."""
    after = load_model(folder / "last")[0].state_dict()
    return {name for name, parameter in before.named_parameters() if not torch.equal(parameter, after[name])}


def test_a_run_trains_the_auxiliary_classifiers(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path)
    start, _ = make_model(make_config(**settings), ("cross", "disc"))
    result = train(out=tmp_path / "run", **settings)
    assert moved(start, result.folder) == {name for name, _ in start.named_parameters()}
    row = next(csv.DictReader((result.folder / "metrics.csv").open()))
    assert 0.6 < float(row["train_loss"]) < 1.0  # the head's, about ln 2: the objective begins at 1.6 ln 2


@pytest.mark.slow
def test_the_phase_of_the_head_leaves_auxiliary_classifiers_alone(tmp_path: Path) -> None:
    torch.save(create_model("googlenet_bn", num_classes=4).state_dict(), tmp_path / "weights.pth")
    settings = quick_settings(tmp_path, weights=str(tmp_path / "weights.pth"), head_epochs=1)
    start, _ = make_model(make_config(**settings), ("cross", "disc"))
    for head in (start.head, *start.auxiliary.values()):  # new classifiers begin undecided
        assert not head.classifier.bias.any() and head.classifier.weight.std() < 0.02
    result = train(out=tmp_path / "run", **settings)
    assert moved(start, result.folder) == {"head.classifier.weight", "head.classifier.bias"}


@pytest.mark.slow
def test_it_learns_shapes(shapes: Path, tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, data=shapes, epochs=8, batch=16, learning_rate=1e-3)
    result = train(out=tmp_path / "run", **settings)
    assert result.scores["test"].top1 >= 0.7  # chance: 0.33
