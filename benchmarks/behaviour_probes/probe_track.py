"""Tracks and their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from behaviour_probes.sandbox import Sandbox

_FRAMES = 24


def track(sandbox: Sandbox) -> Any:
    """Trackers on public detections, scored; deepsort on the first frames of a real video."""
    campus = sandbox.data / "mot" / "TUD-Campus"
    detections, truth = str(campus / "det" / "det.txt"), str(campus / "gt" / "gt.txt")
    found: dict[str, Any] = {}
    for tracker, options in (
        ("sort", ()),
        ("bytetrack", ()),
        ("sort", ("--set", "max_age=5", "--set", "min_hits=1", "--conf", "0.6")),
    ):
        out = f"{tracker}{len(options)}.txt"
        printed = sandbox.json(
            "track", "--detections", detections, "--tracker", tracker, "--mot", out, "--table", "table.json", *options
        )
        (sandbox.folder / "table.json").rename(sandbox.folder / f"{out}.json")
        score = sandbox.json("evaluate", "--task", "track", truth, out)
        found[out] = {"json": printed, "mot": sandbox.numbers(out), "score": score}
        found[out]["table"] = sandbox.rows_of(f"{out}.json")
    reference = str(campus / "reference_tracker_output.txt")
    found["reference"] = sandbox.json("evaluate", "--task", "track", truth, reference)
    return {**found, "frames": _frames(sandbox)}


def _frames(sandbox: Sandbox) -> dict[str, Any]:
    source = sandbox.data / "mot" / "PETS09-S2L1"
    _write_frames(source / "vtest.avi", sandbox.folder / "frames")
    lines = (source / "det" / "det.txt").read_text().splitlines()
    kept = [line for line in lines if int(line.split(",")[0]) <= _FRAMES]
    (sandbox.folder / "det.txt").write_text("\n".join(kept) + "\n")
    printed = sandbox.json(
        *("track", "frames", "--detections", "det.txt", "--tracker", "deepsort", "--threads", "1"),
        *("--mot", "deepsort.txt", "--table", "deepsort.csv", "--line", "gate=0,288,768,288"),
        *("--zone", "0,0,384,0,384,576,0,576", "--save", "followed.mp4"),
    )
    with av.open(str(sandbox.folder / "followed.mp4")) as video:
        stream = video.streams.video[0]
        size = [stream.width, stream.height, sum(1 for _ in video.decode(stream))]
    table = sandbox.table("deepsort.csv")
    return {"json": printed, "mot": sandbox.numbers("deepsort.txt"), "table": table, "video": size}


def _write_frames(video: Path, folder: Path) -> None:
    folder.mkdir()
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            if number > _FRAMES:
                break
            frame.to_image().save(folder / f"{number:06}.png", compress_level=1)
