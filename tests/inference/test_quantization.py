"""int8: what quantization does, what accuracy control accepts, which images it looks at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.errors import MissingExtraError, ModelError
from hubel.inference import quantize
from hubel.inference.accuracy_control import (
    AccuracyCheck,
    QuantizationReport,
    classifier_held_out,
    detector_held_out,
    probabilities,
    quantize_with_accuracy_control,
    runner,
)
from hubel.inference.engines.openvino import to_openvino
from hubel.inference.engines.processor import exact_weight_bits
from hubel.inference.quantize import (
    post_training_quantization,
    quantized_layers,
    rank_by_sensitivity,
    round_keeping_sums,
    with_kernel_sums_kept,
    without_softmax,
)
from hubel.models.metadata import ModelMetadata

PREPROCESSING = Preprocessing(32, 32)


def _network(outlier: float = 0.0) -> nn.Sequential:
    """Two convolutions and a head; ``outlier``: a channel so large that 8 bits are too few for the others beside it.

    The head takes what the channel adds off again, so that in float it changes nothing.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 1)
    )
    network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    if outlier:
        with torch.no_grad():
            network[2].weight[0] = 0
            network[2].bias[0] = outlier
            network[4].bias -= network[4].weight[:, 0, 0, 0] * outlier
    return network.eval()


@cache
def _pixels(count: int, seed: int) -> np.ndarray:
    """Images whose brightness, colour and texture differ, so that they fall into several classes."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(0, 255, (count, 1, 1, 3))
    waves = np.sin(np.arange(32) * rng.uniform(0.1, 3, (count, 1)))[:, :, None, None] * rng.uniform(
        0, 90, (count, 1, 1, 3)
    )
    noise = rng.normal(0, 1, (count, 32, 32, 3)) * rng.uniform(0, 40, (count, 1, 1, 1))
    return (colours + waves * rng.uniform(0, 90, (count, 1, 1, 3)) + noise).clip(0, 255).astype(np.uint8)


def _convolutions(model: openvino.Model) -> dict[str, bool]:
    """Whether each convolution of a model has a quantizer before it, first to last."""
    return {
        each.get_friendly_name(): each.input_value(0).get_node().get_type_name() == "FakeQuantize"
        for each in model.get_ordered_ops()
        if each.get_type_name() == "Convolution"
    }


def _agreement_check(model: openvino.Model, count: int = 200) -> AccuracyCheck:
    return classifier_held_out(_pixels(count, 1), None, runner(model, "fp32"))


def test_kernels_keep_their_sums_and_stay_within_one_step() -> None:
    weights = np.random.default_rng(0).normal(size=(40, 3, 9)).astype(np.float32)
    rounded = round_keeping_sums(weights)
    step = np.abs(weights).max(axis=(1, 2), keepdims=True) / 127
    levels = rounded / step
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert np.abs(levels).max() <= 127.0001
    assert (np.abs(rounded - weights) < 1.0001 * step).all()
    off = np.abs((rounded - weights).sum(2) / step[:, :, 0])
    nearest = np.abs((np.rint(weights / step) * step - weights).sum(2) / step[:, :, 0])
    assert off.max() <= 0.5001 < nearest.max()


@pytest.mark.parametrize(("weight_bits", "steps"), [(8, 127), (7, 63.5)])
def test_quantization_keeps_the_rounding(weight_bits: int, steps: float) -> None:
    model = to_openvino(_network(), PREPROCESSING)
    prepared = [np.array(_weights(each)) for each in _nodes(with_kernel_sums_kept(model, weight_bits))]
    done = post_training_quantization(model, _pixels(32, 0), weight_bits=weight_bits)
    quantized = [np.array(_weights(each)) for each in _nodes(done)]
    for ours, theirs in zip(prepared[:2], quantized[:2], strict=True):  # those with more than one tap
        largest = np.abs(ours).max(axis=(1, 2, 3), keepdims=True)
        half_step = np.broadcast_to(largest / steps / 2, ours.shape)
        # With 7 bits, the largest weight of a filter lies between two levels.
        moved = np.abs(ours) > 0.999 * largest if weight_bits == 7 else np.zeros(ours.shape, bool)
        assert (np.abs(theirs - ours) <= np.where(moved, 1.001 * half_step, 1e-6)).all()


def _nodes(model: openvino.Model) -> list[openvino.Node]:
    return [each for each in model.get_ordered_ops() if each.get_type_name() == "Convolution"]


def _weights(convolution: openvino.Node) -> np.ndarray:
    """A convolution's weights as OpenVINO computes them from what is stored."""
    value = convolution.input_value(1)
    if value.get_node().get_type_name() == "Constant":
        return value.get_node().data
    integers, scale = (part.get_node() for part in value.get_node().input_values())
    return integers.input_value(0).get_node().data.astype(np.float32) * scale.data


def test_quantized_scores_are_torchs_up_to_the_rounding() -> None:
    network = _network()
    pixels = _pixels(200, 1)
    quantized, report = quantize_with_accuracy_control(
        model := to_openvino(network, PREPROCESSING),
        _pixels(64, 0),
        _agreement_check(model),
        tolerance=0.05,
        weight_bits=exact_weight_bits(),
    )
    with torch.no_grad():
        images = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        exact = network(images).numpy()
    scores = probabilities(runner(without_softmax(quantized), "int8"), pixels)
    error = np.square(scores - exact).mean() / np.square(exact).mean()
    assert 1e-8 < error < 0.01  # quantized indeed, and by no more than 20 dB
    assert all(_convolutions(quantized).values())
    assert report.kept_in_float == ()
    same = float((scores.argmax(1) == exact.argmax(1)).mean())
    assert report.agreement == pytest.approx(same, abs=0.011)
    assert (report.images, report.calibration_images) == (200, 64)
    assert f"{report.float_score:.3f} → {report.int8_score:.3f} on 200 held-out images" in report.line()


def test_a_layer_that_ruins_the_predictions_stays_in_float(messages: list[str], log: Callable[[str], None]) -> None:
    model = to_openvino(_network(outlier=20000.0), PREPROCESSING)
    check = _agreement_check(model)
    whole = post_training_quantization(model, _pixels(64, 0))
    before = check.score(runner(whole, "int8"))
    quantized, report = quantize_with_accuracy_control(model, _pixels(64, 0), check, tolerance=0.02, log=log)
    assert report.float_score - before > 0.02 >= report.loss
    assert 0 < len(report.kept_in_float) < report.layers
    assert any("looking for the sensitive layers" in line for line in messages)
    first, _, third = _convolutions(quantized).values()
    assert (first, third) == (True, False), "the layer that sees the outlier is in float, the first is not"
    assert any("Convolution 1×1 of 8 maps" in layer for layer in report.kept_in_float)
    in_float = _nodes(quantized)[2]
    np.testing.assert_array_equal(_weights(in_float), _weights(_nodes(model)[2]))


def test_layers_are_ranked_by_the_error_that_each_brings_alone() -> None:
    model = to_openvino(_network(outlier=20000.0), PREPROCESSING)
    quantized = post_training_quantization(model, _pixels(64, 0))
    pixels = _pixels(16, 2)

    def outputs(candidate: openvino.Model) -> tuple[np.ndarray, ...]:
        return (probabilities(runner(without_softmax(candidate), "fp32"), pixels),)

    ranked = rank_by_sensitivity(model, quantized, outputs, math.inf)
    assert set(ranked) == set(quantized_layers(quantized))
    assert ranked[0] == list(_convolutions(model))[2]
    assert rank_by_sensitivity(model, quantized, outputs, 0.0) == ()


def test_too_much_loss_is_refused_with_the_figures() -> None:
    model = to_openvino(_network(), PREPROCESSING)
    scores = iter([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    check = AccuracyCheck("mean AP", 40, lambda run: next(scores))
    with pytest.raises(ModelError) as refused:
        quantize_with_accuracy_control(model, _pixels(32, 0), check, tolerance=0.01)
    assert "mean AP 0.900 → 0.500 on 40 held-out images" in refused.value.message
    assert "layers kept in float" in refused.value.message
    assert "--precision bf16" in refused.value.hint and "--tolerance 0.4" in refused.value.hint


def test_a_score_that_is_not_a_number_is_refused() -> None:
    scores = iter([0.9] + [math.nan] * 9)
    check = AccuracyCheck("mean AP", 40, lambda run: next(scores))
    with pytest.raises(ModelError, match="nan"):
        quantize_with_accuracy_control(to_openvino(_network(), PREPROCESSING), _pixels(32, 0), check)


def test_the_search_stops_when_its_time_is_over() -> None:
    calls: list[int] = []

    def score(run: object) -> float:
        calls.append(1)
        return 0.9 if len(calls) == 1 else 0.5

    with pytest.raises(ModelError):
        quantize_with_accuracy_control(
            to_openvino(_network(), PREPROCESSING), _pixels(32, 0), AccuracyCheck("top-1", 40, score), budget=0.0
        )
    assert len(calls) == 2, "float and int8, and no attempt to mend"


def test_without_labels_the_float_networks_beliefs_stand_for_them() -> None:
    exact = {"probabilities": np.array([[0.6, 0.3, 0.1], [0.5, 0.45, 0.05]], np.float32)}
    other = {"probabilities": np.array([[0.6, 0.3, 0.1], [0.45, 0.5, 0.05]], np.float32)}
    check = classifier_held_out(np.zeros((2, 1, 1, 3), np.uint8), None, lambda batches: iter([exact]))
    assert check.score(lambda batches: iter([exact])) == pytest.approx(1.0)
    assert check.score(lambda batches: iter([other])) == pytest.approx(1.05 / 1.1)
    assert check.agreement is not None and check.agreement(lambda batches: iter([other])) == 0.5
    labelled = classifier_held_out(np.zeros((2, 1, 1, 3), np.uint8), np.array([0, 1]), lambda batches: iter([exact]))
    assert labelled.score(lambda batches: iter([other])) == 1.0


BOXES = np.array([[2, 2, 12, 12], [14, 14, 30, 30], [1, 20, 9, 30]], np.float32)


def test_a_detector_is_scored_by_its_average_precision() -> None:
    """Of two objects of a class one is found, first: precision is 1 up to a recall of 0.5, at 51 of COCO's 101."""
    metadata = ModelMetadata("detect", "ssd", 2, 3, 32, ["cat", "dog"], replace(PREPROCESSING, resize="stretch"))
    exact = {"boxes": BOXES[None], "scores": np.array([[[0.9, 0], [0.8, 0], [0, 0.7]]], np.float32)}
    other = {"boxes": BOXES[None], "scores": np.array([[[0.9, 0], [0, 0], [0, 0.2]]], np.float32)}
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    alone = detector_held_out(pixels, None, metadata, lambda batches: iter([exact]))
    assert alone.metric.startswith("AP50")
    assert alone.score(lambda batches: iter([exact])) == pytest.approx(1)
    assert alone.score(lambda batches: iter([other])) == pytest.approx((51 / 101 + 1) / 2)
    sample = Sample(Path("a.jpg"), width=64, height=64, boxes=2 * BOXES[:1], labels=np.zeros(1, np.int64))
    sample = replace(sample, crowd=np.zeros(1, bool), difficult=np.zeros(1, bool), areas=np.ones(1, np.float32))
    labelled = detector_held_out(pixels, [sample], metadata, lambda batches: iter([]))
    assert (labelled.metric, labelled.score(lambda batches: iter([other]))) == ("AP", pytest.approx(1))
    missed = {"boxes": BOXES[None] + 10, "scores": exact["scores"]}
    assert labelled.score(lambda batches: iter([missed])) == 0


class _Boxes(nn.Module):
    """Two convolutions, and offsets that are scaled to pixels."""

    prediction_names = ("boxes", "scores")

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 6, 3, 4, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.body(images).flatten(2).transpose(1, 2)
        return rows

    def predictions(self, rows: torch.Tensor, size: tuple[int, int]) -> dict[str, torch.Tensor]:
        centre, extent = (rows[..., :2] * 13 + 100) * 1.7, rows[..., 2:4].exp() * 31
        return {"boxes": torch.cat((centre - extent, centre + extent), 2), "scores": rows[..., 4:].sigmoid()}


def test_boxes_are_decoded_in_float() -> None:
    """NNCF would quantize the additions and multiplications behind the convolutions."""
    torch.manual_seed(0)
    model = to_openvino(_Boxes().eval(), PREPROCESSING)
    quantized = post_training_quantization(model, _pixels(32, 0), weight_bits=exact_weight_bits())
    kinds = {each.get_friendly_name(): each.get_type_name() for each in model.get_ops()}
    assert [kinds[name] for name in quantized_layers(quantized)] == ["Convolution", "Convolution"]


def test_the_report_counts_the_images_whose_top_class_stays() -> None:
    report = QuantizationReport("top-1", 0.92, 0.916, 250, 256, 0.988, (), 74, 94.2, 7)
    assert report.line() == (
        "int8: top-1 0.920 → 0.916 on 250 held-out images, the same top class on 247 of them; none of the layers kept "
        "in float; 7-bit weights, exact on every processor; 94 s"
    )


def test_nncf_writes_nothing_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    post_training_quantization(to_openvino(_network(), PREPROCESSING), _pixels(32, 0))
    assert capfd.readouterr().out == ""


def test_without_nncf_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"hubel\[int8\]"):
        quantize.nncf_library()


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def log(messages: list[str]) -> Callable[[str], None]:
    return messages.append
