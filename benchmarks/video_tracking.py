"""A real video end to end, without writing one: frames per second, identities, and the time of each step.

    HUBEL_DATA=... python benchmarks/video_tracking.py [--peer PYTHON] [--rounds 3]

PETS09-S2L1 (795 frames of 768 × 576) with its detections, 5.5 people per frame. hubel: ``hubel track VIDEO --detections
det.txt``, with each tracker. The other library, deep-sort-realtime with its default appearance (MobileNet-v2 at 224
px), runs in the interpreter of an environment of its own, decoding with OpenCV:

    python -m venv peer
    peer/bin/pip install deep-sort-realtime==1.3.2 opencv-python-headless torch torchvision 'setuptools<81'

Each run is a process of its own, in turns; the time is that of the frames, without loading; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

OURS = ("hubel deepsort", "hubel sort", "hubel bytetrack")
PEER = "deep-sort-realtime"


def ours(name: str, folder: Path) -> dict[str, Any]:
    """The steps of ``hubel track``."""

    from hubel.data.mot import read_mot_text
    from hubel.inference.embedder import Embedder
    from hubel.inference.video_tracking import StageTimer, open_video, run_pipeline
    from hubel.tracking import create_tracker

    boxes, timer = read_mot_text(folder / "det" / "det.txt"), StageTimer()
    video = open_video(str(folder / "vtest.avi"), 25, print)
    tracker = create_tracker(name.removeprefix("hubel "))
    embed = Embedder("efficientnet_lite0") if tracker.needs_features else None
    ids: set[int] = set()
    frames, start = 0, time.perf_counter()
    for _, tracks in run_pipeline(video, boxes, tracker, embed, None, print, timer):
        ids |= set(tracks.ids.tolist())
        frames += 1
    seconds = time.perf_counter() - start
    return {"frames": frames, "seconds": seconds, "identities": len(ids), "shares": timer.seconds}


def peer(folder: Path) -> dict[str, Any]:
    """The other library, used as its documentation shows."""
    import cv2
    from deep_sort_realtime.deepsort_tracker import DeepSort

    rows = np.loadtxt(folder / "det" / "det.txt", delimiter=",")
    tracker, video = DeepSort(max_age=30, embedder_gpu=False), cv2.VideoCapture(str(folder / "vtest.avi"))
    ids, timer, frames, begun = set(), {"decode": 0.0, "embed and associate": 0.0}, 0, time.perf_counter()
    while True:
        start = time.perf_counter()
        more, image = video.read()
        if not more:
            break
        timer["decode"] += time.perf_counter() - start
        frames, start = frames + 1, time.perf_counter()
        here = rows[rows[:, 0] == frames]
        tracks = tracker.update_tracks([(list(row[2:6]), row[6], "person") for row in here], frame=image)
        ids |= {track.track_id for track in tracks if track.is_confirmed() and track.time_since_update == 0}
        timer["embed and associate"] += time.perf_counter() - start
    seconds = time.perf_counter() - begun
    return {"frames": frames, "seconds": seconds, "identities": len(ids), "shares": timer}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")) / "mot" / "PETS09-S2L1")
    parser.add_argument("--peer", help="interpreter of an environment with deep-sort-realtime")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(peer(arguments.data) if arguments.one == PEER else ours(arguments.one, arguments.data)))
        return
    names = [*OURS, *([PEER] if arguments.peer else [])]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            python = arguments.peer if name == PEER else sys.executable
            command = [python, __file__, "--one", name, "--data", str(arguments.data)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip()[-500:]}")
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    print("| | frames/s | identities | fraction of the time |\n| --- | ---: | ---: | --- |")
    for name, found in runs.items():
        speed = statistics.median(one["frames"] / one["seconds"] for one in found)
        total = sum(found[0]["shares"].values())
        shares = ", ".join(f"{stage} {used / total:.0%}" for stage, used in found[0]["shares"].items())
        print(f"| {name} | {speed:.1f} | {found[0]['identities']} | {shares} |")


if __name__ == "__main__":
    main()
