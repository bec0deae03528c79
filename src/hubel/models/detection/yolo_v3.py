"""YOLOv3 (Redmon and Farhadi 2018, "YOLOv3: An Incremental Improvement", arXiv 1804.02767).

``yolo_v3``: Darknet-53 (table 1) and three scales of boxes (section 2.3), as Darknet's ``yolov3.cfg`` has them; the
last units of a stage are routed into the finer scale.

=================================  ===================================================================================
layers                             output for an image of 416 × 416
=================================  ===================================================================================
3×3                                32 channels
five stages: 3×3/2, 1, 2, 8, 8, 4  64, 128, 256, 512, 1024 channels, to 13 × 13
units of 1×1, 3×3 and a shortcut
1×1, 3×3 three times; 1×1          512, 1024 channels; 3 · (5 + classes) channels: boxes of stride 32
1×1, ×2, route; 1×1, 3×3 three     256 channels enlarged to 26 × 26, beside the 512 of stride 16; boxes of stride 16
times; 1×1
likewise                           128 channels enlarged to 52 × 52, beside the 256 of stride 8; boxes of stride 8
=================================  ===================================================================================

``yolo_v3_spp``: the same with three poolings (5, 9 and 13 pixels, stride 1) beside their input after the first 1×1,
3×3, 1×1, joined to 2048 channels (``yolov3-spp.cfg``).

``yolo_v3_tiny`` (``yolov3-tiny.cfg``):

========================  =================================================================
layers                    output for an image of 416 × 416
========================  =================================================================
3×3 convolution, pool     six times: 16, 32, 64, 128, 256, 512 channels, to 13 × 13 (the last pool has stride 1)
3×3, 1×1                  1024, 256 channels
3×3, 1×1                  512, 3 · (5 + classes) channels: boxes of stride 32
1×1, ×2, route            128 channels enlarged to 26 × 26, beside the 256 of stride 16
3×3, 1×1                  256, 3 · (5 + classes) channels: boxes of stride 16
========================  =================================================================

A network is what its cfg says, so relatives (Yolo-Fastest and others) are the same architecture with another ``cfg``::

    cfg = Path("yolo-fastest-1.1.cfg").read_text()
    model = create_model("yolo_v3_tiny", cfg=cfg, weights="yolo-fastest-1.1.weights")

On a classifier (``backbone="resnet18"``), the scales have half the channels.

Deviations: none in the networks; boxes with an IoU above 0.7 are ignored, as in the cfgs (the paper says 0.5). The loss
takes the mean over images, of sums over boxes (Darknet's rate is per batch).
"""

from __future__ import annotations

from hubel.models.base import Architecture
from hubel.models.darknet.cfg_text import ANCHORS_TINY, ANCHORS_V3, conv, detect, net, section, spp, tiny_body
from hubel.models.darknet.families import YOLOConfig, architecture_row

_REFERENCE = "Redmon and Farhadi 2018, arXiv 1804.02767"


def darknet53_cfg() -> str:
    """The 75 layers of Darknet-53 below its pooling."""
    text = conv(32, 3)
    for number, units in enumerate((1, 2, 8, 8, 4)):
        filters = 64 << number
        unit = conv(filters // 2, 1) + conv(filters, 3) + section("shortcut", **{"from": -3}, activation="linear")
        text += conv(filters, 3, 2) + units * unit
    return text


def _scales_cfg(routes: tuple[int, int], width: int = 512, spatial_pyramid: bool = False) -> str:
    """Three scales of boxes; ``routes`` are the layers of stride 16 and 8 that the finer ones read, too."""
    text = ""
    scales = ((width, "6,7,8", routes[0]), (width // 2, "3,4,5", routes[1]), (width // 4, "0,1,2", None))
    for filters, mask, route in scales:
        pair = conv(filters, 1) + conv(2 * filters, 3)
        if spatial_pyramid and filters == width:
            text += pair + conv(filters, 1) + spp() + pair + pair
        else:
            text += 3 * pair
        text += detect(mask, ANCHORS_V3, options={"ignore_thresh": 0.7})
        if route is not None:
            text += section("route", layers=-4) + conv(filters // 2, 1) + section("upsample", stride=2)
            text += section("route", layers=f"-1,{route}")
    return text


def _config(spatial_pyramid: bool = False) -> YOLOConfig:
    cfg = net(608) + darknet53_cfg() + _scales_cfg((61, 36), spatial_pyramid=spatial_pyramid)
    return YOLOConfig(cfg, neck=_scales_cfg((1, 0), 256, spatial_pyramid))


def _tiny_cfg() -> str:
    top = conv(1024, 3) + conv(256, 1) + conv(512, 3) + detect("3,4,5", ANCHORS_TINY, options={"ignore_thresh": 0.7})
    fine = section("route", layers=-4) + conv(128, 1) + section("upsample", stride=2) + section("route", layers="-1,8")
    return (
        net(416)
        + tiny_body()
        + top
        + fine
        + conv(256, 3)
        + detect("0,1,2", ANCHORS_TINY, options={"ignore_thresh": 0.7})
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    architecture_row("yolo_v3", _config(), 75, f"{_REFERENCE}; Darknet's yolov3.cfg"),
    architecture_row("yolo_v3_spp", _config(True), 76, f"{_REFERENCE}; Darknet's yolov3-spp.cfg"),
    architecture_row("yolo_v3_tiny", YOLOConfig(_tiny_cfg()), 13, f"{_REFERENCE}; Darknet's yolov3-tiny.cfg"),
)
