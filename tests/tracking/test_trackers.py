"""The trackers against the papers' published figures and against plain loops with filterpy; and what may go wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trackeval.metrics import CLEAR, HOTA, Identity

import hubel
import reference_trackers
from hubel.errors import UsageError
from hubel.tracking import TRACKERS, create_tracker

SEQUENCES = ["TUD-Campus", "PETS09-S2L1", "KITTI-17", "ETH-Sunnyday"]


def detections(folder: Path, sequence: str, frames: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes and scores of each frame of a MOTChallenge file."""
    rows = np.loadtxt(folder / "mot" / sequence / "det" / "det.txt", delimiter=",")
    rows[:, 4:6] += rows[:, 2:4]
    last = int(rows[:, 0].max())
    found = [rows[rows[:, 0] == frame] for frame in range(1, min(last, frames or last) + 1)]
    return [(rows[:, 2:6], rows[:, 6]) for rows in found]


def follow(name: str, frames: list[tuple[np.ndarray, np.ndarray]], features: list[np.ndarray] | None = None, **more):
    """(frame, id, detection, box) of all that is reported."""
    tracker = create_tracker(name, **more)
    rows = []
    for number, (boxes, scores) in enumerate(frames):
        vectors = features[number] if features is not None else None
        tracked = tracker.update(boxes, scores, None, vectors)
        rows += [
            (number, int(id_), int(index), box)
            for id_, index, box in zip(tracked.ids, tracked.detections, tracked.boxes, strict=True)
        ]
    return rows


def scores_of(rows: list, truth: np.ndarray) -> dict[str, float]:
    """TrackEval's figures."""
    last = int(truth[:, 0].max())
    mine = np.array([(frame + 1, id_, *box) for frame, id_, _, box in rows])
    data: dict = {"gt_ids": [], "tracker_ids": [], "similarity_scores": [], "num_timesteps": last}
    names = [np.unique(part[:, 1]) for part in (truth, mine)]
    for frame in range(1, last + 1):
        a, b = truth[truth[:, 0] == frame], mine[mine[:, 0] == frame]
        data["gt_ids"].append(np.searchsorted(names[0], a[:, 1]))
        data["tracker_ids"].append(np.searchsorted(names[1], b[:, 1]))
        overlap = [[reference_trackers.iou(one[2:6], other[2:6]) for other in b] for one in a]
        data["similarity_scores"].append(np.array(overlap).reshape(len(a), len(b)))
    data |= {"num_gt_ids": len(names[0]), "num_tracker_ids": len(names[1])}
    data |= {"num_gt_dets": len(truth), "num_tracker_dets": len(mine)}
    clear = CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    figures = {"FP": clear["CLR_FP"], "FN": clear["CLR_FN"], "IDSW": clear["IDSW"], "Frag": clear["Frag"]}
    shares = {"HOTA": HOTA().eval_sequence(data)["HOTA"].mean(), "MOTA": clear["MOTA"], "IDF1": identity["IDF1"]}
    return {name: int(value) for name, value in figures.items()} | {n: 100 * float(v) for n, v in shares.items()}


@pytest.fixture(scope="module")
def campus_truth(data_folder: Path) -> np.ndarray:
    truth = np.loadtxt(data_folder / "mot" / "TUD-Campus" / "gt" / "gt.txt", delimiter=",")[:, :6]
    truth[:, 4:6] += truth[:, 2:4]
    return truth


@pytest.mark.data
def test_sort_gives_the_published_results(data_folder: Path, campus_truth: np.ndarray) -> None:
    """The figures of the original with the paper's defaults on TUD-Campus."""
    scores = scores_of(follow("sort", detections(data_folder, "TUD-Campus")), campus_truth)
    assert (scores["FP"], scores["FN"], scores["IDSW"], scores["Frag"]) == (15, 113, 6, 9)
    assert [round(scores[name], 1) for name in ("HOTA", "MOTA", "IDF1")] == [45.3, 62.7, 60.6]


@pytest.mark.data
def test_longer_lives_and_second_associations_are_worth_what_others_measured(
    data_folder: Path, campus_truth: np.ndarray
) -> None:
    frames = detections(data_folder, "TUD-Campus")
    patient = scores_of(follow("sort", frames, max_age=30), campus_truth)
    assert round(patient["HOTA"], 1) >= 50.5 and round(patient["IDF1"], 1) >= 71.7
    byte = scores_of(follow("bytetrack", frames), campus_truth)
    assert round(byte["HOTA"], 1) >= 49.5 and round(byte["MOTA"], 1) >= 63.0 and round(byte["IDF1"], 1) >= 69.1


def assert_the_same(rows: list, reference: list[reference_trackers.Reported]) -> None:
    """The same boxes of the same detections in every frame, and ids that differ in their numbers alone."""
    name_of: dict[int, int] = {}
    for frame, expected in enumerate(reference):
        mine = {index: (id_, box) for number, id_, index, box in rows if number == frame}
        assert set(mine) == {index for _, index, _ in expected}, f"frame {frame + 1}"
        for track, index, box in expected:
            id_, my_box = mine[index]
            np.testing.assert_allclose(my_box, box, rtol=1e-9, atol=1e-6)
            assert name_of.setdefault(track, id_) == id_, f"frame {frame + 1}"
    assert len(set(name_of.values())) == len(name_of)


@pytest.mark.data
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("more", [{}, {"max_age": 20, "min_hits": 1}])
def test_sort_equals_the_plain_loop(data_folder: Path, sequence: str, more: dict[str, int]) -> None:
    frames = detections(data_folder, sequence, frames=150)
    reference = reference_trackers.sort([boxes for boxes, _ in frames], **more)
    assert_the_same(follow("sort", frames, **more), list(reference))


@pytest.mark.data
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_bytetrack_equals_the_plain_loop(data_folder: Path, sequence: str) -> None:
    frames = detections(data_folder, sequence, frames=150)
    reference = reference_trackers.bytetrack([boxes for boxes, _ in frames], [scores for _, scores in frames])
    assert_the_same(follow("bytetrack", frames), list(reference))


@pytest.mark.data
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("nearest_only", [False, True])
def test_deepsort_equals_the_plain_loop(data_folder: Path, sequence: str, nearest_only: bool) -> None:
    """With vectors that tell where a box is, roughly: so appearances are near, far, and near the threshold."""
    frames = detections(data_folder, sequence, frames=120)
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(4, 16))
    features = []
    for boxes, _ in frames:
        vectors = np.sin(boxes / 150) @ directions + rng.normal(0, 0.3, (len(boxes), 16))
        features.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    reference = list(reference_trackers.deepsort([boxes for boxes, _ in frames], features, nearest_only))
    assert sum(map(len, reference)) > 100
    assert_the_same(follow("deepsort", frames, features, nearest_only=nearest_only, max_overlap=1), reference)


def box_at(x: float, y: float = 100.0) -> list[float]:
    return [x, y, x + 40, y + 80]


FACE = np.array([[1.0, 0, 0]], np.float32)


@pytest.mark.parametrize("name", TRACKERS)
def test_classes_are_never_mixed(name: str) -> None:
    """A car that stands where a person was is somebody else."""
    tracker = create_tracker(name)
    ids = [set(), set()]
    for frame in range(12):
        label = int(frame >= 6)
        tracked = tracker.update(np.array([box_at(10)]), None, np.array([label]), FACE)
        ids[label] |= set(tracked.ids.tolist())
        assert (tracked.labels == label).all()
    assert ids[0] and ids[1] and not ids[0] & ids[1]


@pytest.mark.parametrize("name", TRACKERS)
def test_dropped_frames_are_bridged(name: str) -> None:
    """Nine pixels a frame; frames 11 to 16 are missing: told so, the tracker knows where to look."""
    ids = []
    for informed in (True, False):
        tracker = create_tracker(name, **({"max_age": 30} if name == "sort" else {}))
        seen: set[int] = set()
        for frame in [*range(10), *range(16, 30)]:
            elapsed = 7.0 if informed and frame == 16 else 1.0
            seen |= set(tracker.update(np.array([box_at(9 * frame)]), None, None, FACE, elapsed=elapsed).ids.tolist())
        ids.append(len(seen))
    assert ids == [1, 2]


@pytest.mark.parametrize("name", TRACKERS)
def test_age_is_counted_in_time(name: str) -> None:
    """Gone for 40 frames is too long, whether they came one by one or were dropped."""
    lives = {"sort": "max_age", "deepsort": "max_age", "bytetrack": "track_buffer"}[name]
    for absence in ([1.0] * 39, [39.0]):
        tracker = create_tracker(name, **{lives: 30})
        first: set[int] = set()
        for _ in range(8):
            first |= set(tracker.update(np.array([box_at(50)]), None, None, FACE).ids.tolist())
        for elapsed in absence:
            assert len(tracker.update(np.empty((0, 4)), elapsed=elapsed)) == 0
        later: set[int] = set()
        for _ in range(8):
            later |= set(tracker.update(np.array([box_at(50)]), None, None, FACE).ids.tolist())
        assert first and later and not first & later


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_not_a_box_is_left_out(name: str) -> None:
    nan, inf = float("nan"), float("inf")
    bad = [[nan, 0, 10, 10], [0, 0, inf, 10], [-inf, -inf, inf, inf], [5, 5, 5, 9], [9, 9, 5, 5], [0, 0, 1e-300, 1e300]]
    boxes = np.array([*bad, box_at(50)])
    tracker = create_tracker(name)
    for frame in range(10):
        tracked = tracker.update(boxes, np.full(7, 0.9), None, np.tile(FACE, (7, 1)))
        if frame >= 5:
            assert tracked.detections.tolist() == [6]
            np.testing.assert_allclose(tracked.boxes, [box_at(50)], atol=1e-6)
    assert tracker.update(boxes, np.full(7, np.nan), None, np.tile(FACE, (7, 1))).ids.tolist() == []


@pytest.mark.parametrize("name", TRACKERS)
def test_nothing_for_a_minute(name: str) -> None:
    """Lists are taken, too; and afterwards everything goes on."""
    tracker = create_tracker(name)
    for _ in range(1500):
        assert len(tracker.update([])) == 0
    found = [len(tracker.update([box_at(50)], [0.9], [0], FACE)) for _ in range(6)]
    assert found[0] == 0 and found[-1] == 1


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": np.zeros((2, 5))}, "shape"),
        ({"boxes": np.array([box_at(1)]), "scores": np.ones(2)}, "1 boxes, but 2 scores"),
        ({"boxes": np.array([box_at(1)]), "labels": np.ones(3, int)}, "1 boxes, but 3 labels"),
        ({"boxes": np.array([box_at(1)]), "features": FACE, "elapsed": 0.0}, "elapsed"),
        ({"boxes": np.array([box_at(1)]), "features": FACE, "elapsed": float("nan")}, "elapsed"),
    ],
)
def test_wrong_arguments_are_reported(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_tracker(name).update(**arguments)


def test_deepsort_wants_appearances_of_one_kind() -> None:
    tracker = create_tracker("deepsort")
    with pytest.raises(UsageError, match="needs appearance features"):
        tracker.update(np.array([box_at(1)]))
    tracker.update(np.array([box_at(1)]), features=FACE)
    with pytest.raises(UsageError, match="length 4, previous ones 3"):
        tracker.update(np.array([box_at(1)]), features=np.ones((1, 4), np.float32) / 2)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("kalman", {}, "unknown tracker 'kalman'"),
        ("sort", {"max_time": 3}, "no parameter 'max_time'"),
        ("sort", {"iou_threshold": 1.5}, "iou_threshold is 1.5"),
        ("sort", {"max_age": -1}, "max_age is -1"),
        ("sort", {"max_age": float("nan")}, "max_age is nan"),
        ("deepsort", {"n_init": 0}, "n_init is 0"),
        ("deepsort", {"max_cosine_distance": 3}, "max_cosine_distance is 3"),
        ("bytetrack", {"track_thresh": 60}, "track_thresh is 60"),
    ],
)
def test_wrong_parameters_are_reported(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_tracker(name, **parameters)


def test_a_misspelled_parameter_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean max_age"):
        create_tracker("sort", max_agee=1)


def test_trackers_are_listed() -> None:
    assert hubel.list_models(task="track") == ["sort", "deepsort", "bytetrack"]
    assert hubel.list_models("track", "*sort") == ["sort", "deepsort"]


def test_sort_is_silent_after_a_miss_unless_asked_otherwise() -> None:
    """Seen in frames 1 to 8 and from 10 on: the paper reports it again in frame 12, its third match in a row."""
    for reconfirm, silent in ((True, [9, 10, 11]), (False, [9])):
        tracker = create_tracker("sort", max_age=3, reconfirm=reconfirm)
        reported = [frame for frame in range(1, 16) if len(tracker.update(np.array([box_at(50)])[: int(frame != 9)]))]
        assert [frame for frame in range(1, 16) if frame not in reported] == silent
