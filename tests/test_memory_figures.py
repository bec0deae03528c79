"""Memory figures against real runs on the CPU, counted in other ways."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hubel.insight.memory_advice import Memory, advise, largest_batch
from hubel.insight.summary import summarize
from hubel.models import architecture, create_model

CASES = [
    ("lenet5", (1, 32, 32)),
    ("simple_cnn", (1, 28, 28)),
    ("resnet18", (3, 64, 64)),
    ("resnet50", (3, 64, 64)),
    ("efficientnet_lite0", (3, 64, 64)),
]
OTHERS = [("squeezenet1_1", (3, 64, 64)), ("mobilenet_v3_small", (3, 64, 64))]


def _network(name: str) -> nn.Module:
    if name in dict(CASES):
        return create_model(name)
    return getattr(torchvision.models, name)(weights=None)


class _Watching(TorchFunctionMode):
    """After each call of torch's interface, adds up the memory of all tensors that Python still knows."""

    def __init__(self, permanent: set[int]) -> None:
        super().__init__()
        self.permanent = permanent
        self.peak = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") != "__get__":
            with torch._C.DisableTorchFunction():
                self.peak = max(self.peak, self._alive())
        return result

    def _alive(self) -> int:
        storages = {}
        for thing in gc.get_objects():
            if type(thing) is Tensor:
                storages[thing.data_ptr() or id(thing)] = thing.untyped_storage()
        places = {storage.data_ptr(): storage.nbytes() for storage in storages.values()}
        return sum(size for place, size in places.items() if place not in self.permanent)


@pytest.mark.parametrize(("name", "shape"), [*CASES, *OTHERS])
def test_largest_set_alive_is_that_of_a_real_run(name: str, shape: tuple[int, int, int]) -> None:
    model = _network(name).eval()
    constants = [*model.parameters(), *model.buffers()]
    permanent = {tensor.untyped_storage().data_ptr() for tensor in constants}
    gc.collect()
    gc.freeze()  # what is there already is not looked at
    try:
        with torch.no_grad(), _Watching(permanent) as watching:
            model(torch.rand(2, *shape))
    finally:
        gc.unfreeze()
    stated = summarize(model, shape, batch=2)
    assert stated.peak_activation_bytes == pytest.approx(watching.peak, rel=0.1)
    held = sum(tensor.numel() * tensor.element_size() for tensor in constants)
    assert stated.inference_bytes == pytest.approx(held + watching.peak, rel=0.1)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [*((*case, "float32") for case in [*CASES, *OTHERS]), *((*case, "bfloat16") for case in CASES[:2])],
)
def test_what_training_keeps_is_that_of_a_real_run(name: str, shape: tuple[int, int, int], dtype: str) -> None:
    model = _network(name).train().to(getattr(torch, dtype))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    images = torch.rand(2, *shape, dtype=getattr(torch, dtype))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images)
    assert output.requires_grad
    for tensor in (*model.parameters(), *model.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    stated = summarize(model, shape, batch=2, dtype=dtype)
    assert stated.saved_bytes == pytest.approx(real, rel=0.1)


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
    assert advise(model, summary, Memory(summary.training_bytes, "this machine")) == []
    memory = Memory(2_000_000_000, "this machine")
    batch = largest_batch(summary, memory.free)
    fits, too_large = (summarize(model, summary.input, count).training_bytes for count in (batch, batch + 1))
    assert fits <= memory.free < too_large
    advice = " ".join(advise(model, summary, memory, [("resnet34", create_model("resnet34"))]))
    for part in (
        "with 64 images at a time needs 5.9",
        "2 GB free",
        f"{batch} images at a time fit",
        "half the side (112×112)",
        "16 bits",
        "resnet34 needs",
        f"More devices: {-(-64 // batch)} with",
    ):
        assert part in advice


def test_advice_where_not_even_one_image_fits() -> None:
    model = create_model("simple_cnn")
    summary = summarize(model, (1, 28, 28))
    advice = advise(model, summary, Memory(5_000_000, "cuda:0"))
    assert "cuda:0 has 5 MB free" in advice[0]
    assert any("one image alone needs 23.4 MB" in line for line in advice)
    assert not any("devices" in line for line in advice)
