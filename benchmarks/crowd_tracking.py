"""Association in crowds: milliseconds per frame and quality of the identities, compared with other libraries.

    python benchmarks/crowd_tracking.py [--objects 10 100 500 1000 2000] [--peers PYTHON] [--plot growth.png]

A crowd of N people walks over a square whose area grows with N (constant density); a person who leaves on one side is
replaced by a new one on the other. 10 % of the boxes are missed, 5 % more are false, and all are noisy. Every tracker
gets the same boxes; only its update is timed, as the median over the frames after a warm-up. Ours: ``sort`` with the
paper's defaults, ``sort +`` (max_age 30, reported again at once after a miss), ``bytetrack``, and ``deepsort`` with
given vectors of 128 numbers. The other libraries run in the interpreter of an environment of their own, in turns with
ours:

    python -m venv peers
    peers/bin/pip install trackers==2.6.1 filterpy rich
    peers/bin/pip install --no-deps norfair

Scores are hubel's own, which equal TrackEval's (tests/metrics/test_tracking_scores.py). ``--sequences`` times real
detections instead of crowds, those of MOTChallenge in ``HUBEL_DATA``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubel sort": ("sort", {}),
    "hubel sort +": ("sort", {"max_age": 30, "reconfirm": False}),
    "hubel bytetrack": ("bytetrack", {}),
    "hubel deepsort": ("deepsort", {}),
}
PEERS = ("trackers SORT", "trackers ByteTrack", "norfair")
WARM_UP = 20
SEQUENCES = ("TUD-Campus", "PETS09-S2L1", "KITTI-17", "ETH-Sunnyday")


def crowd(objects: int, frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """True boxes and detections of all frames as columns, each with its frame, counted from 1."""
    rng = np.random.default_rng(seed)
    side = 120 * np.sqrt(objects)
    position, height = rng.uniform(0, side, (objects, 2)), rng.uniform(60, 120, objects)
    speed, names = rng.normal(0, 2, (objects, 2)), np.arange(objects)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("truth", "detections", "people")}
    for frame in range(1, frames + 1):
        speed = 0.98 * speed + rng.normal(0, 0.4, (objects, 2))
        position = position + speed
        left = ((position < 0) | (position > side)).any(axis=1)
        names[left] = names.max() + 1 + np.arange(left.sum())
        position %= side
        half = np.stack((0.2 * height, 0.5 * height), axis=1)
        boxes = np.concatenate((position - half, position + half), axis=1)
        columns["truth"].append(np.column_stack((np.full(objects, frame), names, boxes)))
        seen = rng.random(objects) > 0.1
        noisy = boxes[seen] + rng.normal(0, 0.02, (seen.sum(), 4)) * height[seen, None]
        ghosts = rng.poisson(0.05 * objects)
        centre, tall = rng.uniform(0, side, (ghosts, 2)), rng.uniform(60, 120, ghosts)
        ghost_half = np.stack((0.2 * tall, 0.5 * tall), axis=1)
        found = np.vstack((noisy, np.concatenate((centre - ghost_half, centre + ghost_half), axis=1)))
        scores = np.concatenate((rng.uniform(0.6, 1, len(noisy)), rng.uniform(0.3, 0.9, ghosts)))
        columns["detections"].append(np.column_stack((np.full(len(found), frame), found, scores)))
        columns["people"].append(np.concatenate((names[seen], np.full(ghosts, -1))))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def real(folder: Path) -> dict[str, np.ndarray]:
    """A file of detections in the form that :func:`crowd` returns."""
    rows = np.loadtxt(folder / "det" / "det.txt", delimiter=",")
    rows[:, 4:6] += rows[:, 2:4]
    return {"detections": rows[:, [0, 2, 3, 4, 5, 6]], "people": np.zeros(len(rows), int)}


def vectors(people: np.ndarray, seed: int = 1) -> np.ndarray:
    """Appearance vectors of the detections: 128 numbers, similar for the same person."""
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((people.max() + 2, 128), dtype=np.float32)
    made = looks[people] + 0.3 * rng.standard_normal((len(people), 128), dtype=np.float32)
    made[people < 0] = rng.standard_normal(((people < 0).sum(), 128), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


Update = Callable[[np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]


def updater(name: str) -> Update:
    """A function from boxes, scores and vectors of a frame to ids and boxes."""
    if name in OURS:
        from hubel.tracking import create_tracker

        kind, parameters = OURS[name]
        tracker = create_tracker(kind, **parameters)

        def update(boxes: np.ndarray, scores: np.ndarray, features: np.ndarray | None) -> Any:
            tracked = tracker.update(boxes, scores, features=features)
            return tracked.ids, tracked.boxes

        return update
    return _norfair() if name == "norfair" else _trackers(name)


def _trackers(name: str) -> Update:
    import supervision
    import trackers

    tracker = {"trackers SORT": trackers.SORTTracker, "trackers ByteTrack": trackers.ByteTrackTracker}[name]()

    def update(boxes: np.ndarray, scores: np.ndarray, features: np.ndarray | None) -> Any:
        found = supervision.Detections(boxes, confidence=scores, class_id=np.zeros(len(boxes), int))
        tracked = tracker.update(found)
        known = tracked.tracker_id >= 0
        return tracked.tracker_id[known], tracked.xyxy[known]

    return update


def _norfair() -> Update:
    import norfair

    tracker = norfair.Tracker("iou", distance_threshold=0.7, hit_counter_max=30, initialization_delay=2)

    def update(boxes: np.ndarray, scores: np.ndarray, features: np.ndarray | None) -> Any:
        tracked = tracker.update([norfair.Detection(box.reshape(2, 2)) for box in boxes])
        live = [one for one in tracked if one.last_detection.age == one.age or one.hit_counter > 29]
        ids = np.array([one.id for one in live], int)
        return ids, np.array([one.estimate.ravel() for one in live]).reshape(-1, 4)

    return update


def run(name: str, data: dict[str, np.ndarray], most: float) -> dict[str, Any]:
    """Milliseconds per frame, and the reported frame, id and box. Stops after ``most`` seconds."""
    rows, people = data["detections"], data["people"]
    features = vectors(people) if name.endswith("deepsort") else None
    update, times, reported = updater(name), [], []
    begun = time.perf_counter()
    for frame in range(1, int(rows[-1, 0]) + 1):
        here = slice(*np.searchsorted(rows[:, 0], (frame, frame + 1)))
        boxes, scores = np.ascontiguousarray(rows[here, 1:5]), rows[here, 5].copy()
        start = time.perf_counter()
        ids, tracked = update(boxes, scores, None if features is None else features[here])
        times.append(time.perf_counter() - start)
        reported.append(np.column_stack((np.full(len(ids), frame), ids, tracked)))
        if time.perf_counter() - begun > most:
            break
    warm = times[min(WARM_UP, len(times) // 2) :]
    facts = {"ms": 1e3 * statistics.median(warm), "frames": len(times), "mean_ms": 1e3 * statistics.mean(warm)}
    return {**facts, "rows": np.concatenate(reported)}


def in_turn(
    names: list[str], data: dict[str, np.ndarray], peers: str | None, rounds: int, most: float
) -> dict[str, Any]:
    """Run each in a process of its own, in turns; median over the rounds."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", **data)
        for _ in range(rounds):
            for name in names:
                python = sys.executable if name in OURS else peers
                out = Path(folder) / "out.npz"
                command = [python, __file__, "--one", name, "--folder", folder, "--most", str(most)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                    continue
                results[name].append({**json.loads(done.stdout), "rows": np.load(out)["rows"]})
    merged = {}
    for name, found in results.items():
        if found:
            merged[name] = {**found[0], "ms": statistics.median(one["ms"] for one in found)}
    return merged


def scores_of(truth: np.ndarray, rows: np.ndarray, frames: int) -> dict[str, float]:
    """HOTA, MOTA, IDF1."""
    from hubel.metrics.tracking import Boxes, Sequence, score_sequences

    truth = truth[truth[:, 0] <= frames]
    sides = [Boxes(side[:, 0].astype(int), side[:, 1].astype(int), side[:, 2:6]) for side in (truth, rows)]
    figures = score_sequences([Sequence("crowd", *sides)]).together.metrics()
    return {name: figures[name] for name in ("HOTA", "MOTA", "IDF1", "IDSW")}


def plot(path: Path, times: dict[str, dict[int, float]]) -> None:
    """Plot milliseconds per frame against the number of objects, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.4), dpi=110)
    for name, by_objects in times.items():
        ours = name in OURS
        axes.loglog(list(by_objects), list(by_objects.values()), "o-" if ours else "s--", lw=2 if ours else 1.2, ms=4,
                    label=name)  # fmt: skip
    axes.set(xlabel="objects in a frame", ylabel="ms a frame")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[10, 30, 100, 300, 500, 1000, 2000])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="interpreter of an environment with the other libraries")
    parser.add_argument("--most", type=float, default=30, help="maximum seconds per run")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--sequences", action="store_true", help="real detections instead of crowds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        result = run(arguments.one, dict(np.load(arguments.folder / "data.npz")), arguments.most)
        np.savez(arguments.folder / "out.npz", rows=result.pop("rows"))
        print(json.dumps(result))
        return
    names = [*OURS, *(PEERS if arguments.peers else ())]
    if arguments.sequences:
        print("| sequence | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
        for sequence in SEQUENCES:
            data = real(Path(os.environ["HUBEL_DATA"]) / "mot" / sequence)
            found = in_turn(names, data, arguments.peers, arguments.rounds, arguments.most)
            cells = [f"{1e3 / found[name]['ms']:,.0f}" if name in found else "–" for name in names]
            print(f"| {sequence}, frames/s | " + " | ".join(cells) + " |", flush=True)
        return
    times: dict[str, dict[int, float]] = {}
    print("| objects | tracker | ms per frame | MOTA | IDF1 | HOTA | id switches |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for objects in arguments.objects:
        data = crowd(objects, arguments.frames)
        for name, result in in_turn(names, data, arguments.peers, arguments.rounds, arguments.most).items():
            times.setdefault(name, {})[objects] = result["ms"]
            figures = scores_of(data["truth"], result["rows"], result["frames"])
            shares = " | ".join(f"{100 * figures[figure]:.1f}" for figure in ("MOTA", "IDF1", "HOTA"))
            print(f"| {objects} | {name} | {result['ms']:.2f} | {shares} | {figures['IDSW']:.0f} |", flush=True)
    if arguments.plot:
        plot(arguments.plot, times)


if __name__ == "__main__":
    main()
