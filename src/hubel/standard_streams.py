"""Standard output and error that take any text, also in a terminal or a batch system that is not set to UTF-8."""

from __future__ import annotations

import codecs
import io
import os
import sys

_HANDLER = "hubel.plain_letters"
_PLAIN = str.maketrans(
    {"×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "≥": ">=", "≤": "<=", "±": "+-", "…": "...", "·": ".", "─": "-"}
    | {"━": "-", "│": "|", "╸": "-", "•": "*", "“": '"', "”": '"', "’": "'", "✓": "ok"}
)


def _in_plain_letters(error: UnicodeError) -> tuple[str | bytes, int]:
    """A codec's error handler: what stands for characters that an encoding does not have."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN)
    plain = "".join(
        letter if letter.isascii() else letter.encode("ascii", "backslashreplace").decode() for letter in text
    )
    return plain, error.end


def make_streams_safe() -> None:
    """Let stdout and stderr take any text, whatever their encoding, and exist also where they were closed.

    Signs that an encoding does not have become plain letters (``×`` an x), other characters escapes (``caf\\xe9``).
    """
    codecs.register_error(_HANDLER, _in_plain_letters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors=_HANDLER))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
