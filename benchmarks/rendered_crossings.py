"""Identities where people cross: real people, cut out of a video, walk along known paths.

    HUBEL_DATA=... python benchmarks/rendered_crossings.py [--scenes 40] [--trackers sort deepsort] [--show DIR]

From PETS09-S2L1, two to four people who were visible at the same time, and so are different people, are cut out of
their background and pasted on the empty scene, frame after frame as they walk. In each scene they meet in one way: they
pass each other, meet and turn back, bounce off each other, or stop one behind the other and walk on. Boxes are the true
ones with noise of 2 % of the height; 5 % are missed, and so are those that are hidden by 60 % or more; 3 % more are
false.

Prints the identities per person; purity, the fraction of reported boxes that belong to the person who dominates their
track; and switches, reported boxes of a person whose id differs from the previous one.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from hubel.data.video_reader import video_frames
from hubel.tracking import create_tracker

WAYS = ("pass", "turn back", "bounce", "stop behind")
FRAMES = 110


@dataclass(frozen=True)
class Frame:
    """One frame of a scene: the image, the detected boxes (N, 4), and the person of each (N,), -1 for a false one."""

    image: np.ndarray
    boxes: np.ndarray
    people: np.ndarray


def walks(folder: Path, shortest: int = 45) -> tuple[np.ndarray, dict[int, dict[int, np.ndarray]]]:
    """The empty scene, and images of people by track and frame, of those who are not hidden by others."""
    rows = np.loadtxt(folder / "det" / "det.txt", delimiter=",")
    rows[:, 4:6] += rows[:, 2:4]
    tracker = create_tracker("sort")
    found: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    images = (np.asarray(frame.image()) for frame in video_frames(folder / "vtest.avi", "vtest.avi"))
    background = np.median(list(islice(images, 0, None, 20)), axis=0).astype(np.uint8)
    for frame in video_frames(folder / "vtest.avi", "vtest.avi"):
        image = np.asarray(frame.image())
        boxes = rows[rows[:, 0] == frame.number][:, 2:6]
        tracked = tracker.update(boxes)
        for id_, one in zip(tracked.ids.tolist(), tracked.detections.tolist(), strict=True):
            x1, y1, x2, y2 = (round(side) for side in boxes[one])
            inside = x1 >= 0 and y1 >= 0 and x2 <= image.shape[1] and y2 <= image.shape[0]
            if inside and not any(touch(boxes[one], other) for other in np.delete(boxes, one, 0)):
                found[id_][frame.number] = figure(image[y1:y2, x1:x2], background[y1:y2, x1:x2])
    return background, {id_: images for id_, images in found.items() if len(images) >= shortest}


def figure(image: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """RGBA (H, W, 4): opaque where the image differs from the empty scene, without holes and unconnected parts."""
    differs = ndimage.gaussian_filter(np.abs(image.astype(float) - ground).sum(axis=2), 1) > 45
    differs = ndimage.binary_fill_holes(ndimage.binary_closing(differs, iterations=2))
    parts, count = ndimage.label(differs)
    largest = parts == 1 + np.argmax(ndimage.sum_labels(differs, parts, np.arange(1, count + 1))) if count else differs
    opaque = np.clip(ndimage.gaussian_filter(largest.astype(float), 0.7) * 1.6 - 0.3, 0, 1)
    return np.dstack((image, (255 * opaque).astype(np.uint8)))


def touch(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def together(people: dict[int, dict[int, np.ndarray]], count: int, rng: np.random.Generator) -> list[int] | None:
    """People who were all visible in one frame."""
    by_frame: dict[int, list[int]] = defaultdict(list)
    for id_, images in people.items():
        for number in images:
            by_frame[number].append(id_)
    enough = [ids for ids in by_frame.values() if len(ids) >= count]
    if not enough:
        return None
    return rng.permutation(enough[rng.integers(len(enough))])[:count].tolist()


def paths(way: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the feet: (FRAMES, count, 2), meeting near the middle of the image, around the middle frame."""
    time = (np.arange(FRAMES) - FRAMES / 2)[:, None]
    angles = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + rng.uniform(-0.4, 0.4, count)
    speeds = rng.uniform(2.0, 4.5, count)
    along = np.array(
        {
            "pass": time + 0 * speeds,
            "turn back": -np.hypot(time, 8) + 0 * speeds,
            "bounce": -np.abs(time) + 0 * speeds,
            "stop behind": time - np.clip(time, -10, 14) + 0 * speeds,
        }[way]
    )
    meeting = np.array([384, 330]) + rng.uniform(-30, 30, 2) + rng.uniform(-9, 9, (count, 2))
    directions = np.stack((np.cos(angles), 0.5 * np.sin(angles)), axis=1)
    return meeting + along[:, :, None] * (speeds[:, None] * directions)


def scene(
    background: np.ndarray, people: list[dict[int, np.ndarray]], way: str, rng: np.random.Generator
) -> Iterator[Frame]:
    """The frames of one scene."""
    feet = paths(way, len(people), rng)
    tall = rng.uniform(80, 125)
    walks_of = [[person[number] for number in sorted(person)] for person in people]
    for time in range(FRAMES):
        canvas = Image.fromarray(background)
        boxes = np.empty((len(people), 4))
        for one in np.argsort(feet[time, :, 1]):  # farthest first
            walk = walks_of[one]
            back_and_forth = np.abs((time + len(walk) - 1) % (2 * len(walk) - 2) - (len(walk) - 1))
            cut = Image.fromarray(walk[back_and_forth])
            height = round(tall)
            cut = cut.resize((max(8, round(height * cut.width / cut.height)), height), Image.Resampling.BICUBIC)
            x, y = feet[time, one]
            corner = round(x - cut.width / 2), round(y - height)
            boxes[one] = corner[0], corner[1], corner[0] + cut.width, corner[1] + height
            canvas.paste(cut, corner, cut)
        seen = shown(boxes, feet[time, :, 1]) > 0.4
        seen &= (boxes[:, :2] > -10).all(axis=1) & (boxes[:, 2] < 778) & (boxes[:, 3] < 586)
        seen &= rng.random(len(people)) > 0.05
        noisy = boxes[seen] + rng.normal(0, 0.02 * tall, (seen.sum(), 4))
        names = seen.nonzero()[0]
        if rng.random() < 0.03 * len(people):
            corner = rng.uniform([0, 100], [700, 400])
            noisy = np.vstack((noisy, [*corner, corner[0] + 0.4 * tall, corner[1] + tall]))
            names = np.append(names, -1)
        yield Frame(np.asarray(canvas), noisy, names)


def shown(boxes: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Fraction of each box that no nearer one hides, on a grid of points."""
    grid = (np.arange(12) + 0.5) / 12
    shares = np.empty(len(boxes))
    for one, (x1, y1, x2, y2) in enumerate(boxes):
        x, y = np.meshgrid(x1 + grid * (x2 - x1), y1 + grid * (y2 - y1))
        hidden = np.zeros(x.shape, bool)
        for other in (depth > depth[one]).nonzero()[0]:
            a, b, c, d = boxes[other]
            hidden |= (x > a) & (x < c) & (y > b) & (y < d)
        shares[one] = 1 - hidden.mean()
    return shares


@dataclass
class Tally:
    """Statistics of a tracker over scenes."""

    people: int = 0
    identities: int = 0
    boxes: int = 0
    pure: int = 0
    switches: int = 0
    seen: int = 0

    def add(self, rows: list[tuple[int, int]], people: int, seen: int) -> None:
        """Take one scene's (id, person) of every reported box, in order."""
        of_track: dict[int, Counter[int]] = defaultdict(Counter)
        last: dict[int, int] = {}
        for id_, person in rows:
            of_track[id_][person] += 1
            if person >= 0:
                self.switches += last.get(person, id_) != id_
                last[person] = id_
        self.people += people
        self.identities += len(of_track)
        self.boxes += len(rows)
        self.seen += seen
        self.pure += sum(counts.most_common(1)[0][1] for counts in of_track.values())

    def row(self) -> str:
        """The cells of a table row."""
        return (
            f"{self.identities / self.people:.2f} | {self.pure / self.boxes:.4f} | {self.switches} | "
            f"{self.boxes / self.seen:.3f}"
        )


def follow(name: str, frames: list[Frame], embed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None, **more):
    """(id, person) of every reported box."""
    tracker = create_tracker(name, **more)
    rows = []
    for frame in frames:
        vectors = embed(frame.image, frame.boxes) if embed and tracker.needs_features else None
        tracked = tracker.update(frame.boxes, features=vectors)
        rows += list(zip(tracked.ids.tolist(), frame.people[tracked.detections].tolist(), strict=True))
    return rows


def scenes(folder: Path, count: int, seed: int = 0) -> Iterator[tuple[str, list[Frame], int]]:
    """Kind of meeting, frames and number of people of each scene."""
    rng = np.random.default_rng(seed)
    background, people = walks(folder)
    for number in range(count):
        way = WAYS[number % len(WAYS)]
        chosen = together(people, 2 + number // len(WAYS) % 3, rng)
        if chosen is not None:
            yield way, list(scene(background, [people[one] for one in chosen], way, rng)), len(chosen)


def main() -> None:
    """Render, track, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")) / "mot" / "PETS09-S2L1")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trackers", nargs="+", default=["sort", "bytetrack", "deepsort"])
    parser.add_argument("--appearance", default="efficientnet_lite0")
    parser.add_argument("--show", type=Path, help="folder for images of the frames in which people meet")
    arguments = parser.parse_args()
    from hubel.inference.embedder import Embedder

    embed = Embedder(arguments.appearance)
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for number, (way, frames, people) in enumerate(scenes(arguments.data, arguments.scenes, arguments.seed)):
        seen = sum((frame.people >= 0).sum() for frame in frames)
        for name in arguments.trackers:
            rows = follow(name, frames, embed)
            for group in (way, "all"):
                tallies[name, group].add(rows, people, seen)
        if arguments.show:
            arguments.show.mkdir(parents=True, exist_ok=True)
            strip = np.hstack([frame.image[150:450, 200:570] for frame in frames[40:70:6]])
            Image.fromarray(strip).save(arguments.show / f"{number:03d}-{way.replace(' ', '-')}.jpg")
    print("| tracker | scenes | identities per person | purity | switches | reported |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for (name, group), tally in tallies.items():
        print(f"| {name} | {group} | {tally.row()} |")


if __name__ == "__main__":
    main()
