"""Memory figures against real runs on the CPU, counted in other ways."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hubel.analysis.memory_advice import Memory, largest_batch, memory_tips
from hubel.analysis.summary import summarize
from hubel.models import Classifier, architecture, create_model

# One or two of every way to connect layers: chains, shortcuts, concatenations within and between layers, inverted
# residuals, local response normalization, auxiliary classifiers, pre-activation.
CASES = [
    ("lenet5", (1, 32, 32)),
    ("simple_cnn", (1, 28, 28)),
    ("resnet18", (3, 64, 64)),
    ("resnet50", (3, 64, 64)),
    ("efficientnet_lite0", (3, 64, 64)),
    ("alexnet", (3, 99, 99)),
    ("vgg11", (3, 64, 64)),
    ("googlenet_bn", (3, 64, 64)),
    ("densenet121", (3, 64, 64)),
    ("mobilenet_v2", (3, 64, 64)),
    ("cspresnext50", (3, 64, 64)),
]
OTHERS = [("squeezenet1_1", (3, 64, 64)), ("mobilenet_v3_small", (3, 64, 64))]


def _network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    if name in dict(CASES):
        return create_model(name, image_size=shape[1])
    return getattr(torchvision.models, name)(weights=None)


def _alive(run: Callable[[], object]) -> list[int]:
    """Bytes that torch's allocator has given out since the start, at the end of each operation, by torch's profiler.

    What an operation takes and gives back while it runs does not show.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    ended = sorted(profiler.events(), key=lambda event: event.time_range.end)
    assert result is not None  # it lives to the end
    return list(itertools.accumulate(event.self_cpu_memory_usage for event in ended))


@pytest.mark.parametrize(("name", "shape"), [*CASES, *OTHERS])
def test_largest_set_alive_is_that_of_a_real_run(name: str, shape: tuple[int, int, int]) -> None:
    model = _network(name, shape).eval()
    with torch.no_grad():
        measured = max(_alive(lambda: model(torch.rand(2, *shape))))
    stated = summarize(model, shape, batch=2)
    assert stated.peak_activation_bytes == pytest.approx(measured, rel=0.1)
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    assert stated.inference_bytes == pytest.approx(held + measured, rel=0.1)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [*((*case, "float32") for case in [*CASES, *OTHERS]), *((*case, "bfloat16") for case in CASES[:2])],
)
def test_what_training_keeps_is_that_of_a_real_run(name: str, shape: tuple[int, int, int], dtype: str) -> None:
    model = _network(name, shape).train().to(getattr(torch, dtype))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    images = torch.rand(2, *shape, dtype=getattr(torch, dtype))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # As the training loop does; torchvision's have no auxiliary classifiers.
        output = model.training_outputs(images) if isinstance(model, Classifier) else model(images)
        output = output if isinstance(output, torch.Tensor) else output["scores"]
    assert output.requires_grad
    for tensor in (*model.parameters(), *model.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    stated = summarize(model, shape, batch=2, dtype=dtype)
    assert stated.saved_bytes == pytest.approx(real, rel=0.1)


def test_a_training_step_holds_what_is_stated() -> None:
    """Parameters, gradients, AdamW's numbers and what is kept, as the allocator sees them after a step's forward."""
    model = create_model("mobilenet_v2", image_size=64)
    optimizer = torch.optim.AdamW(model.parameters())
    images, stated = torch.rand(2, 3, 64, 64), summarize(model, (3, 64, 64), batch=2)

    def step() -> None:
        loss = model(images).square().mean()
        loss.backward()
        optimizer.step()

    step()  # gradients and the optimizer's numbers exist from here on
    tensors = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
    assert stated.fixed_training_bytes == pytest.approx(held, rel=0.01)
    kept = _alive(lambda: model(images))[-1] + images.nbytes
    assert stated.training_bytes == pytest.approx(held + kept, rel=0.1)


def test_a_plain_chain_needs_two_consecutive_outputs() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 10, 3, padding=1), nn.Conv2d(10, 30, 3, padding=1), nn.Conv2d(30, 1, 1))
    summary = summarize(chain, (1, 50, 50))
    pixel = 4 * 50 * 50
    assert summary.peak_activation_bytes == (1 + 10 + 30) * pixel  # the caller holds the input of one map
    assert summary.saved_bytes == (1 + 10 + 30) * pixel  # each convolution keeps its input
    weights = 4 * (100 + 2730 + 31)
    assert summary.inference_bytes == weights + 41 * pixel
    assert summary.training_bytes == weights * 4 + 41 * pixel  # gradients, and AdamW's two numbers each


def test_frozen_layers_need_no_gradients_and_keep_less() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Conv2d(10, 2, 3))
    chain[0].requires_grad_(False)
    summary = summarize(chain, (1, 20, 20))
    assert summary.gradient_bytes == 4 * (180 + 2)
    assert summary.optimizer_bytes == 2 * summary.gradient_bytes
    assert summary.saved_bytes == 4 * 10 * 18 * 18


def test_sixteen_bits_halve_activations_and_keep_float32_masters() -> None:
    full, half = (summarize(create_model("simple_cnn"), (1, 28, 28), 8, dtype) for dtype in ("float32", "float16"))
    assert half.parameter_bytes * 2 == full.parameter_bytes
    assert half.rows[0].activation_bytes * 2 == full.rows[0].activation_bytes
    assert half.master_bytes == full.parameter_bytes + half.parameter_bytes
    assert (half.gradient_bytes, half.optimizer_bytes) == (full.gradient_bytes, full.optimizer_bytes)


def test_advice_names_numbers_that_fit() -> None:
    model = create_model("resnet50")
    summary = summarize(model, architecture("resnet50").input, batch=64)
    assert memory_tips(model, summary, Memory(summary.training_bytes, "this machine")) == []
    memory = Memory(2_000_000_000, "this machine")
    batch = largest_batch(summary, memory.free)
    fits, too_large = (summarize(model, summary.input, count).training_bytes for count in (batch, batch + 1))
    assert fits <= memory.free < too_large
    advice = " ".join(memory_tips(model, summary, memory, [("resnet34", create_model("resnet34"))]))
    for part in (
        "with 64 images at a time needs 5.9",
        "2 GB free",
        f"{batch} images at a time fit",
        "half the size (112×112)",
        "16-bit activations",
        "resnet34 needs",
        f"More devices: {-(-64 // batch)} with",
    ):
        assert part in advice


def test_advice_where_not_even_one_image_fits() -> None:
    model = create_model("simple_cnn")
    summary = summarize(model, (1, 28, 28))
    advice = memory_tips(model, summary, Memory(5_000_000, "cuda:0"))
    assert "cuda:0 has 5 MB free" in advice[0]
    assert any("one image alone needs 23.4 MB" in line for line in advice)
    assert not any("devices" in line for line in advice)
