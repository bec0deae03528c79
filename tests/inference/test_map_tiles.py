"""Class maps of large images by tiles, masks as files, and cutouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hubel
from hubel.cli.main import main
from hubel.data.preprocessing import Preprocessing
from hubel.errors import UsageError
from hubel.inference.map_tiles import windows_of
from hubel.models import describe
from hubel.models.checkpoint import save_model
from hubel.models.metadata import ModelMetadata

CLASSES = ["dark", "red", "green", "blue"]


class Local(nn.Module):
    """The class of a pixel by the 9 × 9 pixels around it."""

    prediction_names = ("class_map",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 9, padding=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"class_map": outputs.argmax(1).int()}


def metadata(height: int, width: int) -> ModelMetadata:
    ready = Preprocessing(height, width, resize="stretch", crop_fraction=1.0)
    return ModelMetadata("segment", "local", 4, 3, height, CLASSES, ready)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
    return small.resize((230, 170), Image.Resampling.BICUBIC)


def test_each_pixel_counts_once() -> None:
    for width, height, side in ((230, 170, (64, 48)), (64, 48, (64, 48)), (10, 300, (64, 48)), (65, 48, (64, 48))):
        counts = np.zeros((height, width), int)
        for (x1, y1, x2, y2), (left, top, right, bottom) in windows_of(width, height, side):
            assert x1 <= left < right <= x2 and y1 <= top < bottom <= y2
            assert x2 - x1 == min(side[0], width) and y2 - y1 == min(side[1], height)
            counts[top:bottom, left:right] += 1
        assert (counts == 1).all()


def test_tiles_are_equal_to_the_whole(photograph: Image.Image) -> None:
    network = Local()
    ready = metadata(64, 80)
    pixels = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None]
    with torch.no_grad():
        whole = network(ready.preprocessing.normalize(pixels)).argmax(1)[0].numpy()
    predict = hubel.Predictor(network, engine="torch", precision="fp32", metadata=ready, tile=64)
    (found,) = predict([photograph])
    # A tile's own padding is felt four pixels from its border: less than half of the overlap.
    assert found.classes.shape == whole.shape and (found.classes == whole).all()
    assert sum(found.shares.values()) == pytest.approx(1)
    (alone,) = hubel.Predictor(network, engine="torch", precision="fp32", metadata=ready)([photograph])
    assert (alone.classes != whole).any()  # scaled to one tile, it is another image


def test_a_class_is_cut_out(photograph: Image.Image, tmp_path: Path) -> None:
    network, ready = Local(), metadata(170, 230)
    (found,) = hubel.Predictor(network, engine="torch", metadata=ready, cutout="green")([photograph])
    cut = np.asarray(found.cut())
    assert cut.shape == (170, 230, 4)
    np.testing.assert_array_equal(cut[..., :3], np.asarray(photograph))
    np.testing.assert_array_equal(cut[..., 3] == 255, found.classes == 2)
    with pytest.raises(UsageError, match="no such class"):
        hubel.Predictor(network, engine="torch", metadata=ready, cutout="person")
    with pytest.raises(UsageError, match="does not say which pixels"):
        hubel.Predictor("efficientnet_lite0", cutout="palace")


def test_the_mask_of_a_video_is_smoothed() -> None:
    from hubel.inference.cutout import cut_out
    from hubel.results import SegmentationMap

    maps = [np.full((2, 2), value, np.uint8) for value in (1, 0, 0)]
    frames = [SegmentationMap("clip.mp4", 2, 2, each, ("a", "b"), number, 0.0) for number, each in enumerate(maps, 1)]
    smoothed = cut_out([*frames, frames[0]], 1, metadata(2, 2))
    masks = [int(result.alpha[0, 0]) for result in smoothed]  # type: ignore[union-attr]
    assert masks == [255, 153, 92, 157]


def test_masks_are_files(tmp_path: Path, capfd: pytest.CaptureFixture[str], photograph: Image.Image) -> None:
    model = hubel.create_model("fcn32s", num_classes=4, backbone="mobilenet_v3_small", image_size=64)
    nn.init.normal_(model.head.classifier.weight)
    save_model(tmp_path / "model", model, describe(model))
    photograph.save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), "--model", str(tmp_path / "model"), "--engine", "torch", "--json"]
    with pytest.raises(SystemExit) as done:
        main(["predict", *arguments, "--save", str(tmp_path / "out")])
    assert done.value.code in (0, None)
    row = json.loads(capfd.readouterr().out)
    assert Path(row["mask"]) == tmp_path / "out" / "a_mask.png" and (tmp_path / "out" / "a.jpg").is_file()
    mask = np.asarray(Image.open(row["mask"]))
    (found,) = hubel.Predictor(tmp_path / "model", engine="torch")([str(tmp_path / "a.png")])
    np.testing.assert_array_equal(mask, found.classes)
    shares = {each["index"]: each["share"] for each in row["classes"]}
    assert shares == pytest.approx({int(index): float((mask == index).mean()) for index in np.unique(mask)}, abs=1e-6)
