"""``hubel bench``: how fast models run on this machine, and how fast they could."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubel.cli.options import Json, Threads
from hubel.console import log, print_json

if TYPE_CHECKING:
    from hubel.benchmark.session import Session

_SAMPLE_WIDTHS = (480, 640, 1280, 1920)


def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Names, names with weights, or run folders.", show_default=False),
    ],
    as_json: Json = False,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="torch, openvino or onnx; may be repeated.", show_default="all that are installed"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="fp32, bf16, fp16 or int8; may be repeated.", show_default="fp32, bf16 and int8, where they can be had"
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Pictures at once; may be repeated.", show_default="1 and 16")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Photographs to go from files to answers with.", show_default="sample photographs"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long each measurement takes.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is taken, in turns.")] = 3,
    threads: Threads = None,
) -> None:
    """Measure models on this machine: images a second, latency, memory, start, by engine, precision and batch.

    Every measurement is a process of its own, and all are taken in turns; figures are medians of the rounds. Beside
    the network alone, whole pictures are timed, from the file to the answer. The bound is what this machine could do
    at most: the network's multiplications at its measured peak, or the network's bytes at its measured bandwidth.
    Takes some minutes a model; Ctrl-C prints what there is so far. A name whose weights are not on this machine is
    measured with random ones.

    \b
    hubel bench efficientnet_lite0
    hubel bench resnet50 mobilenet_v2 --engine openvino --batch 1 --json
    hubel bench runs/flowers --images holiday/
    """
    import tempfile

    from hubel.benchmark.session import BenchOptions, Session

    with tempfile.TemporaryDirectory(prefix="hubel-bench-") as name, _progress() as step:
        folder = Path(name)
        pictures, said = _pictures(images, folder)
        wanted = BenchOptions(models, engine or (), precision or (), batch or (), pictures, seconds, rounds, threads)
        session = Session(wanted, folder, log, step)
        interrupted = False
        try:
            session.run()
        except KeyboardInterrupt:
            interrupted = True
    rows = session.rows()
    if as_json:
        print_json(rows)
    else:
        _print(rows, session, said)
    if interrupted:
        raise KeyboardInterrupt
    if any("error" in row for row in rows) or not any("images_per_second" in row for row in rows):
        raise typer.Exit(1)


def _pictures(images: Path | None, folder: Path) -> tuple[list[Path], str]:
    """The files that go from file to answer, and what to say of them."""
    from hubel.errors import ImageError

    if images is None:
        from hubel.data.sample_images import write_in_sizes

        widths = ", ".join(map(str, _SAMPLE_WIDTHS))
        said = f"scikit-learn's two sample photographs, as JPEG {widths} pixels wide; --images takes yours"
        return write_in_sizes(folder, _SAMPLE_WIDTHS), said
    from hubel.data.file_listing import PICTURE_SUFFIXES, files_below

    if not images.is_dir():
        raise ImageError(f"{images} is no folder.", "Name a folder of photographs with --images.")
    found = files_below(images, lambda folder, error: log(f"{folder} cannot be listed: {error.strerror}"))
    files = [path for path in found if path.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        raise ImageError(f"{images} has no pictures in it.", "Name a folder of photographs with --images.")
    return files, f"{len(files)} pictures of {images}"


def _print(rows: list[dict[str, Any]], session: Session, pictures: str) -> None:
    """The table, then in sentences what is not in it."""
    from hubel.console import print_table

    measured = [row for row in rows if "images_per_second" in row]
    if measured:
        print_table(_table(measured))
        print(f"From files to answers: {pictures}.")
    if session.limits is not None:
        peaks = ", ".join(f"{name} {peak / 1e9:.0f}" for name, peak in session.limits.macs_per_second.items())
        print(
            f"This machine at most, threads: {session.limits.threads}: {peaks} GMAC/s, memory "
            f"{session.limits.bytes_per_second / 1e9:.1f} GB/s."
        )
    for row in rows:
        for kind, word in (("left_out", "left out"), ("error", "failed")):
            if kind in row:
                print(f"{word}: {_name(row)}: {row[kind]}")


def _name(row: dict[str, Any]) -> str:
    batch = None if row["batch"] is None else f"batch {row['batch']}"
    return " ".join(part for part in (row["model"], row["engine"], row["precision"], batch) if part)


_TITLES = (
    "Batch", "Network\nimages/s", "Files\nimages/s", "Latency ms\np50 / p90 / p99", "Memory\nMB", "Start s\n(imports)",
    "Bound\nimages/s", "Bound\nby", "Reached",
)  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("Model", "Engine", "Precision"):
        table.add_column(title, no_wrap=True)
    for title in _TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["model"], row["engine"], row["precision"], str(row["batch"]), *_figures(row))
    return table


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


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; elsewhere a line for each thing that is begun."""
    if not sys.stderr.isatty():
        yield lambda doing, done, of: log(doing)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bench")
        yield lambda doing, done, of: bar.update(task, description=doing, completed=done, total=of)
