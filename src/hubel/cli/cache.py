"""``hubel cache``: converted models and downloaded weights on this machine."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from hubel.cli.options import Json
from hubel.console import count_of, print_json, show


def cache(
    action: Annotated[str, typer.Argument(metavar="[clear]", help="clear: remove the converted models.")] = "",
    weights: Annotated[
        bool, typer.Option("--weights", help="With clear: remove the downloaded weights as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Show or clear the cache of converted models and downloaded weights.

    Models are converted for OpenVINO or ONNX Runtime when many images are to be predicted, and cached for the next
    time; beyond HUBEL_CACHE_GB gigabytes (2) the least recently used are removed.
    With --json: {"folder", "limit_bytes", "size_bytes", "converted": […], "weights": {…}}.

    \b
    hubel cache
    hubel cache clear
    hubel cache clear --weights
    """
    from hubel.errors import UsageError
    from hubel.inference.engines.cache import ConvertedCache
    from hubel.weights.local_cache import cache_folder, clear_downloads, downloads

    if action not in ("", "clear") or (weights and not action):
        raise UsageError(f"unknown action {action or '--weights'!r}", "use hubel cache or hubel cache clear")
    converted = ConvertedCache()
    if action:
        freed = converted.clear()
        freed += clear_downloads() if weights else 0
        if json:
            print_json({"freed_bytes": freed})
        else:
            show(f"{_megabytes(freed)} freed")
        return
    entries, files = converted.entries(), downloads()
    size = sum(entry.size_bytes for entry in entries)
    weights_size = sum(path.stat().st_size for path in files)
    if json:
        print_json({
            "folder": str(converted.folder),
            "limit_bytes": converted.limit,
            "size_bytes": size,
            "converted": [entry.to_json() for entry in entries],
            "weights": {"folder": str(cache_folder()), "files": len(files), "size_bytes": weights_size},
        })  # fmt: skip
        return
    for entry in entries:
        used = datetime.datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        show(f"{entry.model}  {entry.engine} {entry.precision}  {_megabytes(entry.size_bytes)}  used {used}")
    limit = _megabytes(converted.limit)
    show(f"{count_of(len(entries), 'converted model')}, {_megabytes(size)} of at most {limit}, in {converted.folder}")
    show(f"{count_of(len(files), 'file')} of downloaded weights, {_megabytes(weights_size)}, in {cache_folder()}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
