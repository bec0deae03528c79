"""``hubel bench``: how fast models run on this machine, and how fast they could."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubel.cli.options import Json, Threads
from hubel.console import ProgressBar, count_of, log, print_json, print_table, show
from hubel.tables import Table

if TYPE_CHECKING:
    from hubel.benchmark.session import Session

_SAMPLE_WIDTHS = (480, 640, 1280, 1920)


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Names, names with weights, run folders, or exported folders.", show_default=False
        ),
    ],
    as_json: Json = False,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="torch, openvino or onnx; may be repeated.", show_default="all that are installed"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="fp32, bf16, fp16 or int8; may be repeated.", show_default="fp32, and bf16 and int8 if available"
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Batch size; may be repeated.", show_default="1 and 16")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images for the end-to-end measurement.", show_default="sample photographs"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Duration of each measurement.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of interleaved measurements.")] = 3,
    threads: Threads = None,
) -> None:
    """Measure models on this machine: images per second, latency, memory and start-up time.

    Every combination of engine, precision and batch size runs in its own process, and they take turns; figures
    are medians of the rounds. Besides the network alone, whole predictions are timed, from the file to the result. The
    bound is the highest speed that this machine allows: the network's multiplications at its measured peak, or the
    network's bytes at its measured bandwidth. Takes some minutes per model; Ctrl-C prints the results so far. A name
    whose weights are not on this machine is measured with random weights.

    \b
    hubel bench efficientnet_lite0
    hubel bench resnet50 mobilenet_v2 --engine openvino --batch 1 --json
    hubel bench runs/flowers --images holiday/
    """
    from hubel.models.metadata import check_exists

    for model in models:  # said at once: measuring takes minutes
        check_exists(model)
    from hubel.benchmark.session import Session

    with tempfile.TemporaryDirectory(prefix="hubel-bench-") as name, ProgressBar("bench") as bar:
        folder = Path(name)
        files, source = _image_files(images, folder)

        def step(doing: str, done: int, total: int) -> None:
            if bar.visible:
                bar.update(done, total, doing)
            else:
                log(doing)

        session = Session(
            models, engine or (), precision or (), batch or (), files, seconds, rounds, threads, folder, log, step
        )
        interrupted = False
        try:
            session.run()
        except KeyboardInterrupt:
            interrupted = True
    rows = session.rows()
    if as_json:
        print_json(rows)
    else:
        _print(rows, session, source)
    if interrupted:
        raise KeyboardInterrupt
    if any("error" in row for row in rows) or not any("images_per_second" in row for row in rows):
        raise typer.Exit(1)


def _image_files(images: Path | None, folder: Path) -> tuple[list[Path], str]:
    """The files of the end-to-end measurement, and their description."""
    from hubel.errors import ImageError

    if images is None:
        from hubel.data.sources import write_in_sizes

        widths = ", ".join(map(str, _SAMPLE_WIDTHS))
        source = f"scikit-learn's two sample photographs, as JPEG {widths} pixels wide; use --images for your own"
        return write_in_sizes(folder, _SAMPLE_WIDTHS), source
    from hubel.data.file_kinds import is_image_file
    from hubel.data.file_listing import files_below

    if not images.is_dir():
        raise ImageError(f"{images} is not a folder", "pass a folder of images with --images")
    found = files_below(images, lambda folder, error: log(f"{folder} cannot be listed: {error.strerror}"))
    files = [path for path in found if is_image_file(path)]
    if not files:
        raise ImageError(f"{images} contains no images", "pass a folder of images with --images")
    return files, f"{count_of(len(files), 'image')} from {images}"


def _print(rows: list[dict[str, Any]], session: Session, source: str) -> None:
    """The table, then a sentence for each combination that is not in it."""
    measured = [row for row in rows if "images_per_second" in row]
    if measured:
        keys = ("model", "engine", "precision", "batch")
        cells = [[*(str(row[key]) for key in keys), *_figures(row)] for row in measured]
        print_table(Table(_TITLES, cells, left=3, optional=_OPTIONAL))
        show(f"End to end: {source}.")
    if session.limits is not None:
        peaks = ", ".join(f"{name} {peak / 1e9:.0f}" for name, peak in session.limits.macs_per_second.items())
        show(
            f"Peak of this machine with {count_of(session.limits.threads, 'thread')}: {peaks} GMAC/s, memory "
            f"{session.limits.bytes_per_second / 1e9:.1f} GB/s."
        )
    for row in rows:
        batch = row["batch"] and f"batch {row['batch']}"
        name = " ".join(part for part in (row["model"], row["engine"], row["precision"], batch) if part)
        for kind, label in (("left_out", "left out"), ("error", "failed")):
            if kind in row:
                show(f"{label}: {name}: {row[kind]}")


_TITLES = (
    "Model", "Engine", "Precision", "Batch", "Network\nimages/s", "End to end\nimages/s",
    "Latency ms\np50 / p90 / p99", "Memory\nMB", "Start s\n(imports)", "Bound\nimages/s", "Bound\nby", "Reached",
)  # fmt: skip
_OPTIONAL = ("Start s\n(imports)", "Bound\nby", "Memory\nMB", "Bound\nimages/s", "Reached", _TITLES[6])


def _figures(row: dict[str, Any]) -> list[str]:
    latencies = [row[f"latency_p{percent}_seconds"] for percent in (50, 90, 99)]
    start, imports, most = row["cold_start_seconds"], row["import_fraction"], row["bound_images_per_second"]
    return [
        f"{row['images_per_second']:.1f}",
        f"{row['end_to_end_images_per_second']:.1f}",
        "–" if None in latencies else " / ".join(f"{1000 * each:.1f}" for each in latencies),
        f"{row['peak_memory_bytes'] / 1e6:.0f}",
        "–" if start is None else f"{start:.2f} ({imports:.0%})",
        *(("–", "–", "–") if most is None else (f"{most:.0f}", row["bound_by"], f"{row['bound_fraction']:.0%}")),
    ]
