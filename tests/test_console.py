"""Text from files is shown as text: it cannot command the terminal."""

import pytest

from hubel.console import log, printable, report_error


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
