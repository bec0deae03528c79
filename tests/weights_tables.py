"""What the publishers' own packages say of their weights, as rows of ``src/hubel/weights/tables``.

``KERAS_BACKEND=torch HUBEL_DATA=… python tests/weights_tables.py`` writes the tables anew, after a new version of
torchvision, timm or Keras. Nothing is downloaded: the packages carry addresses, digests, figures.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

TABLES = Path(__file__).resolve().parent.parent / "src" / "hubel" / "weights" / "tables"
COLUMNS = (
    "architecture",
    "tag",
    "top1",
    "top5",
    "license",
    "size",
    "crop",
    "interpolation",
    "pixels",
    "settings",
    "bytes",
    "sha256",
    "md5",
    "location",
)
Row = dict[str, str]

# torchvision's name → ours, where they differ.
TORCHVISION = {
    "alexnet": "alexnet_owt",
    "googlenet": "googlenet_bn",
    **{f"vgg{depth}_bn": f"vgg{depth}" for depth in (11, 13, 16, 19)},
    **{
        name: name
        for name in (
            *(f"vgg{depth}" for depth in (11, 13, 16, 19)),
            "inception_v3",
            *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
            *("resnext50_32x4d", "resnext101_32x8d"),
            *(f"densenet{depth}" for depth in (121, 169, 201)),
            *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
            *(f"efficientnet_b{number}" for number in range(8)),
        )
    },
}
# timm's name → ours, what goes before its tag to keep tags apart, the options that its keys cannot tell.
TIMM: tuple[tuple[str, str, str, str], ...] = (
    (r"tf_efficientnet_(b[0-7])", r"efficientnet_\1", "", "same=true norm_eps=0.001"),
    (r"efficientnet_(b[0-7])", r"efficientnet_\1", "", ""),
    (r"tf_efficientnet_(lite[0-4])", r"efficientnet_\1", "", ""),
    (r"mobilenetv1_100", "mobilenet_v1", "", ""),
    (r"mobilenetv1_125", "mobilenet_v1", "125_", "width=1.25"),
    (r"mobilenetv2_100", "mobilenet_v2", "", ""),
    (r"mobilenetv2_050", "mobilenet_v2", "050_", "width=0.5"),
    (r"mobilenetv2_140", "mobilenet_v2", "140_", "width=1.4"),
    (r"tf_mobilenetv3_(large|small)_100", r"mobilenet_v3_\1", "", "same=true norm_eps=0.001"),
    (r"tf_mobilenetv3_(large|small)_075", r"mobilenet_v3_\1", "075_", "width=0.75 same=true norm_eps=0.001"),
    (r"mobilenetv3_(large|small)_100", r"mobilenet_v3_\1", "", ""),
    (r"mobilenetv3_(large|small)_075", r"mobilenet_v3_\1", "075_", "width=0.75"),
    (r"mobilenetv3_(large|small)_050", r"mobilenet_v3_\1", "050_", "width=0.5"),
    (r"(inception_v3|inception_v4|inception_resnet_v2)", r"\1", "", ""),
    (r"(densenet121|densenet169|densenet201)", r"\1", "", ""),
    (r"(cspresnet50|cspresnext50|cspdarknet53)", r"\1", "", ""),
    (r"(vgg\d+)", r"\1", "", ""),
    (r"(vgg\d+)_bn", r"\1", "bn_", "batch_norm=true"),
    (r"(resnet(18|34|50|101|152))", r"\1", "", ""),
    (r"(resnext50_32x4d|resnext101_32x8d)", r"\1", "", ""),
    (r"(?:legacy_)?seresnet(50|101|152)", r"se_resnet\1", "", ""),
    (r"(?:legacy_)?senet154", "senet154", "", ""),
    (r"legacy_xception", "xception", "", ""),
)
MORE_THAN_IMAGENET = re.compile(r"jft|yfcc|ig1b|in12k|in21k")  # in tags of networks that saw further photographs

# Keras's name → ours, the module that it stands in, how it wants pixels, side of its images.
KERAS = {
    "Xception": ("xception", "xception", "half", 299),
    "VGG16": ("vgg16", "vgg16", "caffe", 224),
    "VGG19": ("vgg19", "vgg19", "caffe", 224),
    **{f"ResNet{depth}": (f"resnet{depth}", "resnet", "caffe", 224) for depth in (50, 101, 152)},
    "InceptionV3": ("inception_v3", "inception_v3", "half", 299),
    "InceptionResNetV2": ("inception_resnet_v2", "inception_resnet_v2", "half", 299),
    "MobileNet": ("mobilenet_v1", "mobilenet", "half", 224),
    "MobileNetV2": ("mobilenet_v2", "mobilenet_v2", "half", 224),
    "MobileNetV3Small": ("mobilenet_v3_small", "mobilenet_v3", "half", 224),
    "MobileNetV3Large": ("mobilenet_v3_large", "mobilenet_v3", "half", 224),
    **{f"DenseNet{depth}": (f"densenet{depth}", "densenet", "imagenet", 224) for depth in (121, 169, 201)},
    **{
        f"EfficientNetB{number}": (f"efficientnet_b{number}", "efficientnet", "imagenet", size)
        for number, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
}
PIXELS = {  # mean and deviation, of values 0..1
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "half",
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): "unit",
}
LICENSES = {"apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause", "cc-by-nc-4.0": "CC-BY-NC-4.0", "mit": "MIT"}

HEADERS = {
    "torchvision": """
# From torchvision {version}, torchvision.models: addresses, sizes (MiB there, rounded), figures, transforms.
# sha256: the digits in the file's name. License: that of torchvision.
""",
    "timm": """
# From timm {version}, timm.models: address, licence, mean and deviation; figures, with the size, crop and filter
# that they were measured with, from timm's results/results-imagenet.csv. The Hub states files' SHA-256 itself.
""",
    "keras": """
# From Keras {version}, keras/src/applications: addresses, MD5 where there is one; figures: keras.io/api/applications.
# Crop and filter are ours (docs/weights.md): Keras does not say which its figures were measured with.
""",
}


def torchvision_rows() -> list[Row]:
    """All of ImageNet that classify; an architecture's newest first, those with normalization added last."""
    from torchvision import models

    rows = []
    for theirs, ours in TORCHVISION.items():
        options = _options(ours, "torchvision", _keys(partial(models.get_model, theirs)))
        published = list(models.get_model_weights(theirs))
        for weights in sorted(published, key=lambda each: each.name, reverse=True):
            metrics = weights.meta["_metrics"]["ImageNet-1K"]
            if math.isnan(metrics["acc@1"]):  # VGG16's IMAGENET1K_FEATURES cannot classify
                continue
            transform = weights.transforms()
            (size,), (resized,) = transform.crop_size, transform.resize_size
            # Both change the input on the way in: x · 0.229 / 0.5 + (0.485 − 0.5) / 0.5 and so on.
            inside = theirs in ("googlenet", "inception_v3")
            rows.append(
                {
                    "architecture": ours,
                    "tag": ("BN_" if theirs.endswith("_bn") else "") + weights.name,
                    "top1": str(metrics["acc@1"]),
                    "top5": str(metrics["acc@5"]),
                    "license": "BSD-3-Clause",
                    "size": str(size),
                    "crop": f"{size}/{resized}",
                    "interpolation": transform.interpolation.value,
                    "pixels": "half" if inside else PIXELS[tuple(transform.mean), tuple(transform.std)],
                    "settings": options,
                    "bytes": str(round(weights.meta["_file_size"] * 2**20)),
                    "sha256": re.findall(r"-([0-9a-f]{8,})\.pth", weights.url)[0],
                    "md5": "",
                    "location": weights.url,
                }
            )
    return sorted(rows, key=lambda row: (list(TORCHVISION.values()).index(row["architecture"]), "BN_" in row["tag"]))


def timm_rows(measured: Path) -> list[Row]:
    """All that tell ImageNet's 1000 classes; an architecture's best first, of those that saw only ImageNet."""
    from timm.models import create_model, get_pretrained_cfg, list_pretrained

    @cache
    def keys_of(theirs: str) -> list[str]:
        return _keys(partial(create_model, theirs))

    with measured.open(newline="") as file:
        figures = {row["model"]: row for row in csv.DictReader(file)}
    rows = []
    for full_name in list_pretrained():
        theirs, _, tag = full_name.partition(".")
        found = _ours(theirs)
        cfg = get_pretrained_cfg(full_name)
        if found is None or cfg is None or cfg.num_classes != 1000:
            continue
        ours, prefix, settings = found
        figure = figures[full_name]
        hub = f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors" if cfg.hf_hub_id else ""
        digits = re.findall(r"-([0-9a-f]{8,})\.pth", cfg.url or "")
        rows.append(
            {
                "architecture": ours,
                "tag": prefix + tag,
                "top1": figure["top1"],
                "top5": figure["top5"],
                "license": LICENSES[cfg.license],
                "size": figure["img_size"],
                "crop": _crop(cfg, figure),
                "interpolation": figure["interpolation"],
                "pixels": PIXELS[tuple(cfg.mean), tuple(cfg.std)],
                "settings": _options(ours, "timm", keys_of(theirs), settings),
                "bytes": "",
                "sha256": "" if hub else digits[0],
                "md5": "",
                "location": hub or cfg.url,
            }
        )
    return sorted(rows, key=_timm_order)


def _keys(make: Callable[[], Any]) -> list[str]:
    import torch

    with torch.device("meta"):
        return list(make().state_dict())


def _options(architecture_name: str, source: str, keys: list[str] | None = None, said: str = "") -> str:
    """What these weights need and the architecture has not by itself: by their format, and ``said``.

    Without keys the source has one format for the architecture.
    """
    from hubel.models import architecture
    from hubel.weights.key_rules import FORMATS

    (known,) = (
        each
        for each in FORMATS
        if re.fullmatch(each.architectures, architecture_name)
        and (each.source == source if keys is None else each.signature in keys)
    )
    own = asdict(architecture(architecture_name).config)
    needed = {option: json.dumps(value) for option, value in known.settings.items()}
    needed |= dict(text.split("=") for text in said.split())
    return " ".join(f"{option}={value}" for option, value in needed.items() if json.loads(value) != own[option])


def _ours(theirs: str) -> tuple[str, str, str] | None:
    for pattern, ours, prefix, settings in TIMM:
        match = re.fullmatch(pattern, theirs)
        if match:
            return match.expand(ours), prefix, settings
    return None


def _crop(cfg: Any, figure: Row) -> str:
    if cfg.crop_mode == "squash":
        return "stretch"
    # The table of figures rounds to three decimals.
    exact = cfg.crop_pct if figure["img_size"] == str(cfg.input_size[1]) else cfg.test_crop_pct
    assert abs(exact - float(figure["crop_pct"])) < 6e-4, (cfg, figure)
    return str(exact)


def _timm_order(row: Row) -> tuple[Any, ...]:
    altered = bool(re.search("width=|batch_norm=", row["settings"]))  # more than what the name stands for
    further = bool(MORE_THAN_IMAGENET.search(row["tag"]))
    return _natural(row["architecture"]), altered, further, -float(row["top1"]), row["tag"]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def keras_rows(figures: Path) -> list[Row]:
    """The applications that are ours, with the classifier."""
    with figures.open(newline="") as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    published |= _mobilenet_v3_figures()
    rows = []
    for theirs, (ours, module, pixels, size) in KERAS.items():
        location, md5 = keras_file_of(theirs, module)
        figure = published[theirs]
        efficient = module == "efficientnet"
        rows.append(
            {
                "architecture": ours,
                "tag": "imagenet",
                "top1": figure["top1"],
                "top5": figure["top5"],
                "license": "Apache-2.0",
                "size": str(size),
                "crop": f"{size}/{size + 32}" if efficient else "0.875",
                "interpolation": "bicubic" if efficient else "bilinear",
                "pixels": pixels,
                "settings": _options(ours, "keras"),
                "bytes": "",
                "sha256": "",
                "md5": md5,
                "location": location,
            }
        )
    return sorted(rows, key=lambda row: _natural(row["architecture"]))


def _mobilenet_v3_figures() -> dict[str, Row]:
    """Keras's page has none; the docstrings of its functions have top-1."""
    import keras

    text = keras.applications.MobileNetV3Small.__doc__
    found = re.findall(
        r"^\|mobilenet_v3_(small|large)_1\.0_224\|[^|]*\|[^|]*\|([^|]*)\|", text.replace(" ", ""), flags=re.M
    )
    return {f"MobileNetV3{size.capitalize()}": {"top1": top1, "top5": ""} for size, top1 in found}


def keras_file_of(theirs: str, module: str) -> tuple[str, str]:
    """Where Keras's own code gets an application's file, and the MD5 that it expects: asked of the code itself."""
    import importlib

    import keras

    asked: dict[str, Any] = {}

    def instead(fname: str, origin: str, file_hash: str | None = None, **_: Any) -> None:
        asked.update(origin=origin, file_hash=file_hash)
        raise FileNotFoundError

    code = importlib.import_module(f"keras.src.applications.{module}")
    before = code.file_utils.get_file
    code.file_utils.get_file = instead
    try:
        with keras.device("meta"):
            getattr(keras.applications, theirs)(weights="imagenet")
    except FileNotFoundError:
        pass
    finally:
        code.file_utils.get_file = before
    return asked["origin"], asked["file_hash"] or ""


def keras_layers() -> Iterator[tuple[str, list[str]]]:
    """Our name, and the names of the application's layers with arrays that we read, in the order of Keras."""
    import keras

    for theirs, (ours, *_) in KERAS.items():
        keras.backend.clear_session()
        with keras.device("meta"):
            model = getattr(keras.applications, theirs)(weights=None)
        layers = [each for each in model.layers if each.weights and not isinstance(each, keras.layers.Normalization)]
        yield ours, [re.sub(r"^(conv2d|batch_normalization)$", r"\1_0", layer.name) for layer in layers]


def as_csv(name: str, version: str, rows: list[Row]) -> str:
    """The whole file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return HEADERS[name].lstrip().format(version=version) + text.getvalue()


def write() -> None:
    """Write all tables."""
    import keras
    import timm
    import torchvision

    data = Path(os.environ["HUBEL_DATA"]) / "tables"
    for name, version, rows in (
        ("torchvision", torchvision.__version__.partition("+")[0], torchvision_rows()),
        ("timm", timm.__version__, timm_rows(data / "results-imagenet.csv")),
        ("keras", keras.__version__, keras_rows(data / "keras_applications.csv")),
    ):
        (TABLES / f"{name}.csv").write_text(as_csv(name, version, rows))
    lines = [f"{ours}: {' '.join(layers)}\n" for ours, layers in keras_layers()]
    head = (
        f"# Layers with weights of the applications of Keras {keras.__version__}, in the order in which Keras reads\n"
        "# what it publishes: by position, as names there are others. Counted names (conv2d_17) count from 0 here.\n"
    )
    (TABLES / "keras_layers.txt").write_text(head + "".join(lines))


if __name__ == "__main__":
    write()
