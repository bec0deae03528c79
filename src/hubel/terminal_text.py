"""Text from files as it may be shown in a terminal."""

from __future__ import annotations

import unicodedata

_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reorder what follows


def printable(text: str) -> str:
    """A name from a file as it may be shown in a line of text.

    Control characters, which can command a terminal, become visible escapes, line breaks and tabs among them, and so do
    changes of direction and halves of surrogate pairs, which have no encoding.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter not in _DIRECTIONS and unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"):
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
