"""A million frames: memory and time per frame must stay constant, and no id may be assigned twice.

    python benchmarks/long_tracking.py [--frames 1000000] [--objects 10] [--trackers sort bytetrack deepsort]

Objects walk, are missed now and then, leave and are replaced. After every tenth of the frames it prints the resident
memory of the process, and the milliseconds of processor time per frame in that tenth (the median over parts of a
thousand frames, which other work on the machine hardly affects).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import psutil

from hubel.tracking import create_tracker

PART = 1000
LONGEST = 40  # frames that a track survives without a detection


def frames(objects: int, seed: int = 0):
    """Boxes, scores and vectors of one frame after the other, without end."""
    rng = np.random.default_rng(seed)
    position, height = rng.uniform(0, 1000, (objects, 2)), rng.uniform(60, 120, objects)
    looks, speed = rng.standard_normal((objects, 16)), rng.normal(0, 2, (objects, 2))
    while True:
        position += speed
        gone = ((position < 0) | (position > 1000)).any(axis=1)
        count = int(gone.sum())
        if count:
            position[gone], speed[gone] = rng.uniform(100, 900, (count, 2)), rng.normal(0, 2, (count, 2))
            looks[gone] = rng.standard_normal((count, 16))
        seen = rng.random(objects) > 0.1
        half = np.stack((0.2 * height, 0.5 * height), axis=1)
        boxes = np.concatenate((position - half, position + half), axis=1)[seen] + rng.normal(0, 1, (seen.sum(), 4))
        vectors = looks[seen] + 0.2 * rng.standard_normal((seen.sum(), 16))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        yield boxes, rng.uniform(0.5, 1, len(boxes)), vectors


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--trackers", nargs="+", default=["sort", "bytetrack", "deepsort"])
    arguments = parser.parse_args()
    print("| tracker | frames | memory (MB) | ms per frame | ids assigned | highest id |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.trackers:
        follow(name, arguments.frames, arguments.objects)


def follow(name: str, count: int, objects: int) -> None:
    """Run one tracker and print a line per tenth; raises ``AssertionError`` if an id returns after its track ended."""
    tracker, source = create_tracker(name), frames(objects)
    given, highest, parts = 0, 0, []
    last_seen: dict[int, int] = {}
    for number in range(1, count + 1):
        boxes, scores, vectors = next(source)
        start = time.process_time()
        tracked = tracker.update(boxes, scores, features=vectors)
        parts.append(time.process_time() - start)
        for id_ in tracked.ids.tolist():
            if id_ > highest:
                given, highest = given + 1, id_
            else:
                assert number - last_seen.get(id_, -LONGEST) <= LONGEST, f"id {id_} has come back"
            last_seen[id_] = number
        if number % PART == 0:
            last_seen = {id_: seen for id_, seen in last_seen.items() if number - seen <= LONGEST}
        if number % (count // 10) == 0:
            memory = psutil.Process().memory_info().rss / 1e6
            groups = [parts[position : position + PART] for position in range(0, len(parts), PART)]
            middle = statistics.median(1e3 * statistics.mean(group) for group in groups)
            print(f"| {name} | {number:,} | {memory:.0f} | {middle:.3f} | {given:,} | {highest:,} |", flush=True)
            parts = []
    assert given == highest, "an id was left out or given twice"


if __name__ == "__main__":
    main()
