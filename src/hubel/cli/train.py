"""``hubel train``: from labelled photographs to a network and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hubel.cli.options import Device, Json, Options, Threads, parsed_options
from hubel.console import log, print_json


def train(
    data: Annotated[Path, typer.Argument(help="A folder with one folder of images for each class; or labelled boxes.")],
    task: Annotated[
        Literal["classify", "localize", "detect"] | None,
        typer.Option(
            help="What to learn: the class; the class and one box; all objects with their boxes.",
            show_default="by the labels: classify or detect",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The network; see hubel models.", show_default="efficientnet_lite0, or ssd"),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="The classifier that a localizer or detector stands on.", show_default="efficientnet_lite0"),
    ] = None,
    options: Options = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="In all.", show_default="11; 60 from scratch; by task")
    ] = None,
    head_epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Epochs of the head alone, counted in --epochs.", show_default="3; 0 from scratch"),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Pixels of a side.", show_default="the network's own")
    ] = None,
    training_size: Annotated[
        int | None,
        typer.Option(min=8, help="Pixels of a side in training.", show_default="6/7 of it for transfer learning"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images a step, of all processes together.", show_default="32; 16 for a detector"),
    ] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Steps whose gradients are added up before an update.")] = 1,
    split: Annotated[
        str, typer.Option(help="Shares of train,validation,test of an unsplit folder.")
    ] = "0.75,0.15,0.10",
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    weights: Annotated[str, typer.Option(help="Weights to start from: a catalog name or a file.")] = "default",
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate after the head.", show_default="3e-4; 2e-3 from scratch")
    ] = None,
    head_learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate of the head alone.", show_default="1e-2; 3e-3 for boxes")
    ] = None,
    weight_decay: Annotated[float, typer.Option(min=0)] = 0.05,
    optimizer: Annotated[Literal["adamw", "sgd"], typer.Option(help="adamw or sgd.")] = "adamw",
    schedule: Annotated[Literal["cosine", "one-cycle", "constant"], typer.Option()] = "cosine",
    warmup: Annotated[float, typer.Option(min=0, help="Epochs of linear warm-up.")] = 1.0,
    unfreeze_from: Annotated[
        str | None,
        typer.Option(
            help="A layer's name or a fraction from the top: what learns after the head.",
            show_default="0.67; all from scratch",
        ),
    ] = None,
    batch_norm: Annotated[
        Literal["frozen", "train"] | None,
        typer.Option(help="The statistics of unfrozen BatchNorm.", show_default="frozen; train from scratch"),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            "--augment",
            help="Comma-separated: rotation, shift, window, crop, flip, contrast, color, lighting, randaugment, mixup, "
            "cutmix; alexnet (window, flip, lighting); boxes: mosaic, zoom, scale, crop, flip, color; ssd; or none.",
            show_default="crop,flip; scale,flip,color or crop,flip,color for boxes",
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(min=0, max=0.99, help="For classes.", show_default="0.1")
    ] = None,
    loss_weights: Annotated[
        str,
        typer.Option(
            metavar="TERM=WEIGHT,…",
            help="Of a localizer's loss: class, giou, smooth_l1, mse.",
            show_default="class=1,giou=2,smooth_l1=5",
        ),
    ] = "",
    average: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9999,
            help="Decay of the weights' moving average; 0: off.",
            show_default="0.98; 0.9 for localization",
        ),
    ] = None,
    balance: Annotated[
        Literal["auto", "none", "sampling", "loss", "smote"],
        typer.Option(help="For skewed classes; smote: features for a head on a frozen backbone, --augment none."),
    ] = "auto",
    patience: Annotated[int, typer.Option(min=1, help="Epochs without improvement before stopping early.")] = 10,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="auto: measured.")
    ] = "auto",
    device: Device = "auto",
    threads: Threads = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that load images.", show_default="measured")
    ] = None,
    cache: Annotated[
        Literal["auto", "ram", "disk", "none"],
        typer.Option(help="Where decoded images are kept for further epochs; auto: ram, else disk, within a quarter."),
    ] = "auto",
    cache_features: Annotated[
        bool,
        typer.Option(
            "--cache-features",
            help="The head alone learns from features of unchanged images; always so with --augment none.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/NAME")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of this name, or of --out.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop when an image cannot be read.")] = False,
    json: Json = False,
) -> None:
    """Train a network on labelled photographs.

    For classification the folder has one folder a class, or train/, val/ and test/ with those inside. For localization
    it has labels of any annotation tool; of several boxes in a picture the largest counts.

    \b
    hubel train flowers/
    hubel train flowers/ --model resnet50 --epochs 20 --augment crop,flip,color,randaugment
    hubel train cells/                          labels of any annotation tool: a detector
    hubel train raccoons/ --task localize
    hubel train flowers/ --resume
    """
    given = dict(locals())  # options but for these are settings of the same name
    for name in ("data", "resume", "out", "json", "from_scratch"):
        del given[name]
    given["weights"] = None if from_scratch else weights
    given["options"] = parsed_options(options)
    given = {name: value for name, value in given.items() if value is not None or name == "weights"}
    from hubel.inference.system import set_passive_omp_wait

    set_passive_omp_wait()
    from hubel.training.distributed import is_main
    from hubel.training.train import train as run

    result = run(data, resume=resume, out=out, **given)
    if not is_main():  # one of several processes speaks for all
        return
    if json:
        print_json(result.to_json())
    else:
        print(result.headline())
    log(f"report: {result.folder / 'report.html'}")
    log(f"next: hubel predict PHOTO.jpg --model {result.folder}")
