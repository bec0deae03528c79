"""Output of the commands: text from files cannot command the terminal, and what takes long says so."""

import time

import pytest

from hubel.console import ProgressBar, activity, count_of, log, printable, report_error


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("café 猫 🐈", "café 猫 🐈"),
        ("\u06af\u200c\u0627", "\u06af\u200c\u0627"),  # a joiner that Persian needs
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nerror: b\tc", "a\\nerror: b\\tc"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\x9b", "a\\u2028b\\x9b"),
    ],
)
def test_what_commands_a_terminal_is_shown_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_messages_are_one_line_each_and_logs_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report_error("class 'a\x07' is\nunknown.", "Rename it.")
    log("one\ntwo\x1b")
    assert capsys.readouterr().err == "error: class 'a\\x07' is unknown.\nhint:  Rename it.\none\ntwo\\x1b\n"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "epoch", "1 epoch"),
        (1200, "image", "1,200 images"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "batch", "3 batches"),
        (3, "epoch", "3 epochs"),
    ],
)
def test_numbers_with_their_nouns(number: int, noun: str, text: str) -> None:
    assert count_of(number, noun) == text


def test_where_no_bar_can_be_drawn_long_work_writes_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("hubel.console.time", type("Clock", (), {"monotonic": lambda: now[0]}))
    with ProgressBar("epoch 1/2", 1000, lines=True) as bar, ProgressBar("silent", 1000) as silent:
        for second in range(40):
            now[0] = float(second)
            bar.advance(note=f"loss {second}")
            silent.advance()
    assert capsys.readouterr().err == "epoch 1/2: 3 of 1,000  loss 2\nepoch 1/2: 33 of 1,000  loss 32\n"


def test_an_activity_is_named_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with activity("quick"):
        pass
    monkeypatch.setattr("hubel.console._FIRST_LINE", 0.0)
    with activity("scoring 3 images"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "scoring 3 images …\n"
