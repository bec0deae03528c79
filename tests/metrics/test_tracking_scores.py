"""Scores of tracks against TrackEval on real and on made sequences, and against py-motmetrics where the two agree."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import trackeval
from typer.testing import CliRunner

from hubel.cli.main import app, main
from hubel.errors import DataError, UsageError
from hubel.tracking.evaluate import score_files

COUNTS = {"FP": "CLR_FP", "FN": "CLR_FN", "IDSW": "IDSW", "Frag": "Frag", "MT": "MT", "PT": "PT", "ML": "ML"}
SHARES = {
    "HOTA": {name: name for name in ("HOTA", "DetA", "AssA", "LocA")},
    "CLEAR": {"MOTA": "MOTA", "MOTP": "MOTP", "Recall": "CLR_Re", "Precision": "CLR_Pr", **COUNTS},
    "Identity": {"IDF1": "IDF1", "IDP": "IDP", "IDR": "IDR"},
}


def track_eval(folder: Path, lengths: dict[str, int], benchmark: str) -> dict[str, dict[str, float]]:
    """TrackEval's figures of ``folder/gt/SEQ/gt/gt.txt`` and ``folder/results/mine/SEQ.txt``."""
    quiet = {"PRINT_CONFIG": False, "PRINT_RESULTS": False, "PLOT_CURVES": False, "OUTPUT_SUMMARY": False}
    options = {**quiet, "OUTPUT_DETAILED": False, "OUTPUT_EMPTY_CLASSES": False, "TIME_PROGRESS": False}
    layout = {"GT_FOLDER": str(folder / "gt"), "TRACKERS_FOLDER": str(folder / "results"), "SKIP_SPLIT_FOL": True}
    more = {"TRACKER_SUB_FOLDER": "", "TRACKERS_TO_EVAL": ["mine"], "SEQ_INFO": lengths, "BENCHMARK": benchmark}
    with contextlib.redirect_stdout(io.StringIO()):
        data = trackeval.datasets.MotChallenge2DBox({**layout, **more, "PRINT_CONFIG": False})
        metrics = [
            trackeval.metrics.HOTA(),
            *(m({"PRINT_CONFIG": False}) for m in (trackeval.metrics.CLEAR, trackeval.metrics.Identity)),
        ]
        results, _ = trackeval.Evaluator(options).evaluate([data], metrics)
    figures = {}
    for name, classes in results["MotChallenge2DBox"]["mine"].items():
        rows = classes["pedestrian"]
        figures[name] = {
            mine: float(np.mean(rows[metric][theirs]))
            for metric, names in SHARES.items()
            for mine, theirs in names.items()
        }
    return figures


def assert_equals_track_eval(folder: Path, lengths: dict[str, int], benchmark: str = "MOT17") -> None:
    expected = track_eval(folder, lengths, benchmark)
    scores = score_files([folder / "gt", folder / "results" / "mine"], note=lambda text: None)
    rows = {row.name: row for row in scores.sequences} | {"COMBINED_SEQ": scores.together}
    assert set(rows) == set(expected)
    for name, row in rows.items():
        figures = row.metrics()
        for figure, value in expected[name].items():
            assert figures[figure] == pytest.approx(value, abs=1e-6), (name, figure)


def write(folder: Path, name: str, truth: np.ndarray, result: np.ndarray, length: int) -> None:
    (folder / "gt" / name / "gt").mkdir(parents=True)
    (folder / "results" / "mine").mkdir(parents=True, exist_ok=True)
    (folder / "gt" / name / "seqinfo.ini").write_text(f"[Sequence]\nname={name}\nseqLength={length}\n")
    np.savetxt(folder / "gt" / name / "gt" / "gt.txt", truth, delimiter=",", fmt="%.6g")
    np.savetxt(folder / "results" / "mine" / f"{name}.txt", result, delimiter=",", fmt="%.6g")


def made_sequence(seed: int, frames: int = 40, objects: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Objects of all classes that walk, vanish and come back, and a tracker that errs in every way it can."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 500, (objects, 2))
    size = np.stack((rng.uniform(30, 60, objects), rng.uniform(70, 140, objects)), axis=1)
    classes = rng.choice([1, 1, 1, 1, 2, 3, 7, 8, 12], objects)
    classes[0] = 1
    truth, result, names = [], [], rng.permutation(objects) + 1
    for frame in range(1, frames + 1):
        corner = corner + rng.normal(0, 4, (objects, 2)) + 1
        for one in range(objects):
            if (frame + 7 * one) % 29 < 5:
                continue
            counted = 0 if rng.random() < 0.1 else 1
            truth.append([frame, one + 1, *corner[one], *size[one], counted, classes[one], round(rng.random(), 2)])
            if rng.random() < 0.05:
                names[rng.integers(objects)], names[one] = names[one], names[rng.integers(objects)]
            if rng.random() < 0.8 and frame % 13:
                box = np.concatenate((corner[one], size[one])) + rng.normal(0, 5, 4)
                result.append([frame, int(names[one]) + 100 * (frame > 25 and one == 2), *box, 1, -1, -1, -1])
        if rng.random() < 0.5:
            result.append([frame, 50 + frame // 4, *rng.uniform(0, 500, 2), 40, 100, 1, -1, -1, -1])
    unique = {(int(row[0]), int(row[1])): row for row in result}
    return np.array(truth), np.array(list(unique.values()))


def test_equals_track_eval_with_distractors_and_ignored_classes(tmp_path: Path) -> None:
    lengths = {}
    for seed, name in enumerate(("street", "square", "station")):
        truth, result = made_sequence(seed)
        lengths[name] = 40 + seed
        write(tmp_path, name, truth, result, lengths[name])
    assert_equals_track_eval(tmp_path, lengths)


def test_equals_track_eval_with_the_vehicles_of_2020(tmp_path: Path) -> None:
    truth, result = made_sequence(8)
    truth[truth[:, 7] == 3, 7] = 6
    truth[truth[:, 1] == 2, 7] = 6
    write(tmp_path, "MOT20-77", truth, result, 40)
    assert_equals_track_eval(tmp_path, {"MOT20-77": 40}, "MOT20")


def test_equals_track_eval_where_one_side_is_missing(tmp_path: Path) -> None:
    """Frames without truth, frames without tracks, a sequence in which nothing fits."""
    truth, result = made_sequence(5)
    truth[:, 7] = 1
    write(tmp_path, "gaps", truth[(truth[:, 0] < 10) | (truth[:, 0] > 20)], result[result[:, 0] % 5 > 0], 45)
    far = result.copy()
    far[:, 2] += 5000
    write(tmp_path, "nothing", truth, far, 40)
    assert_equals_track_eval(tmp_path, {"gaps": 45, "nothing": 40})


@pytest.fixture
def campus(data_folder: Path) -> tuple[Path, Path]:
    folder = data_folder / "mot" / "TUD-Campus"
    return folder / "gt" / "gt.txt", folder / "reference_tracker_output.txt"


@pytest.mark.data
def test_tud_campus(campus: tuple[Path, Path], tmp_path: Path) -> None:
    truth, result = (np.loadtxt(path, delimiter=",") for path in campus)
    write(tmp_path, "TUD-Campus", truth, result, 71)
    assert_equals_track_eval(tmp_path, {"TUD-Campus": 71}, "MOT15")
    figures = score_files(campus, note=lambda text: None).together.metrics()
    assert [round(100 * figures[name], 2) for name in ("HOTA", "MOTA", "IDF1")] == [39.14, 52.65, 55.77]


@pytest.mark.data
def test_agrees_with_motmetrics(campus: tuple[Path, Path], data_folder: Path) -> None:
    """Which has MOTP as the mean distance, 1 - IoU."""
    with (data_folder / "mot" / "expected_TUD-Campus.csv").open() as file:
        (expected,) = csv.DictReader(file)
    figures = score_files(campus, note=lambda text: None).together.metrics()
    names = {"idf1": "IDF1", "idp": "IDP", "idr": "IDR", "recall": "Recall", "precision": "Precision", "mota": "MOTA",
             "num_false_positives": "FP", "num_misses": "FN", "num_switches": "IDSW", "num_fragmentations": "Frag",
             "mostly_tracked": "MT", "partially_tracked": "PT", "mostly_lost": "ML"}  # fmt: skip
    for theirs, ours in names.items():
        assert figures[ours] == pytest.approx(float(expected[theirs]), abs=1e-6), ours
    assert 1 - figures["MOTP"] == pytest.approx(float(expected["motp"]), abs=1e-6)


TRUTH = "1,1,10,10,40,80,1,1,1\n2,1,12,10,40,80,1,1,1\n3,1,14,10,40,80,1,1,1\n"


def scored(tmp_path: Path, result: str, truth: str = TRUTH) -> tuple[dict[str, float], list[str]]:
    (tmp_path / "gt.txt").write_text(truth)
    (tmp_path / "result.txt").write_text(result)
    notes: list[str] = []
    scores = score_files([tmp_path / "gt.txt", tmp_path / "result.txt"], notes.append)
    return scores.together.metrics(), notes


def test_an_empty_result_is_reported_and_scores_nothing(tmp_path: Path) -> None:
    figures, notes = scored(tmp_path, "")
    assert (figures["HOTA"], figures["MOTA"], figures["IDF1"], figures["FN"], figures["ML"]) == (0, 0, 0, 3, 1)
    assert len(notes) == 1 and "result.txt has no boxes" in notes[0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("1,3,10,10,40,80,1\n2,-1,10,10,40,80,1\n", "result.txt, line 2: the id is -1, in frame 2"),
        ("1,3,10,10,40,80,1\n\n1,3,90,10,40,80,1\n", "result.txt, line 3: id 3 occurs twice in frame 1"),
        ("1,3,10,10,40\n", "line 1: 5 numbers"),
        ("1,3,10,10,40,80\n2,3,ten,10,40,80\n", "line 2: 'ten' is not a number"),
        ("1,3,10,10,40,80\n2,3,10,10,40,80,1\n", "line 2: 7 numbers, the lines before have 6"),
        ("0,3,10,10,40,80\n", "frames count from 1, this one is: 0"),
        ("1.5,3,10,10,40,80\n", "the frame is not an integer: 1.5"),
        ("1,nan,10,10,40,80\n", "the id is not an integer: nan"),
    ],
)
def test_wrong_results_are_named(tmp_path: Path, result: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        scored(tmp_path, result)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("result", "note"),
    [
        (TRUTH + "9,1,10,10,40,80,1,1,1\n", "1 boxes after frame 3"),
        ("7,1,10,10,40,80,1\n", "no frame in common"),
        ("1,1,nan,10,40,80,1\n2,1,12,10,40,80,1\n", "1 box is not finite (first in line 1)"),
        ("1,1,10,10,0,80,1\n2,1,12,10,40,80,1\n", "1 box is without an area (first in line 1)"),
        ("3,1,14,10,40,80,1\n1,1,10,10,40,80,1\n", "frames are not in order (first in line 2)"),
    ],
)
def test_odd_results_are_reported_and_scored(tmp_path: Path, result: str, note: str) -> None:
    figures, notes = scored(tmp_path, result)
    assert any(note in text for text in notes), notes
    assert 0 <= figures["HOTA"] < 1


def test_files_in_the_wrong_order_are_suspected(tmp_path: Path) -> None:
    _, notes = scored(tmp_path, TRUTH, "1,1,10,10,40,80,0.73\n")
    assert any("GT.txt RESULT.txt" in text for text in notes)


@pytest.mark.parametrize(
    ("ends", "reason"),
    [("1,3,1", "the eighth column has 3"), ("0,1,1", "all have the flag 0"), ("1,12,1", "the eighth column has 12")],
)
def test_truth_of_which_nothing_counts_is_reported(tmp_path: Path, ends: str, reason: str) -> None:
    """One's own truth of cars, by its class: MOTChallenge compares pedestrians."""
    truth = "".join(f"{frame},1,10,20,30,40,{ends}\n" for frame in range(1, 5))
    figures, notes = scored(tmp_path, "".join(f"{frame},1,10,20,30,40,1,-1,-1,-1\n" for frame in range(1, 5)), truth)
    assert figures["HOTA"] == 0
    (note,) = notes
    assert "no box counts" in note and reason in note


def test_no_truth_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no boxes"):
        scored(tmp_path, TRUTH, "\n")


def test_files_come_in_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 files"):
        score_files([tmp_path / "a", tmp_path / "b", tmp_path / "c"], print)
    with pytest.raises(DataError, match="does not exist"):
        score_files([tmp_path / "a", tmp_path / "b"], print)


def test_other_ways_to_write_a_file(tmp_path: Path) -> None:
    """Spaces for commas, DOS line ends, a byte order mark, blank lines, old line ends, six columns: the same score."""
    plain = "1,4,10,10,40,80\n2,4,13,10,40,80\n"
    expected, _ = scored(tmp_path, plain)
    for text in (
        plain.replace(",", " "),
        plain.replace("\n", "\r\n"),
        "\ufeff" + plain,
        "\n" + plain + "\n\n",
        plain.replace("\n", "\n  \n"),
        plain.replace("\n", "\r"),
    ):
        assert scored(tmp_path, text)[0] == expected


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt.txt").write_text(TRUTH)
    names = [str(tmp_path / "gt.txt")] * 2
    shown = CliRunner().invoke(app, ["evaluate", "--task", "track", *names, "--json"])
    assert shown.exit_code == 0
    row = json.loads(shown.stdout)
    assert row["task"] == "track" and row["images"] == 3
    for figure in ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1"):
        assert row["metrics"][figure] == row["per_sequence"][0]["metrics"][figure] == 1
    for figure in ("IDSW", "Frag", "FP", "FN"):
        assert row["metrics"][figure] == 0
    table = CliRunner().invoke(app, ["evaluate", "--task", "track", *names, *names])
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["HOTA", "gt", "gt", "together"]
    for arguments, code in ((["--task", "track", names[0]], 2), (["--task", "detect", *names], 2), (names[:1], 2),
                            (["--task", "track", names[0], "nowhere.txt"], 1)):  # fmt: skip
        with pytest.raises(SystemExit) as exit_:
            main(["evaluate", *arguments])
        assert exit_.value.code == code
        assert len(capsys.readouterr().err.splitlines()) == 2
