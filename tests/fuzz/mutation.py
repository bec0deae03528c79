"""Damage to files that a parser still half understands: values of JSON and text are replaced, bytes moved and flipped.

All choices come from a ``Random``: a seeded one repeats an input, and Hypothesis' own shrinks it.
"""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

from fuzz.containers import damage_for

NUMBERS = (
    "0", "-1", "1", "255", "65536", "2147483647", "-2147483649", "9223372036854775808", "1e309", "-1e309", "1e-320",
    "nan", "inf", "0.1", "1_0", "0x10", "\u0663", "9" * 40, "1" + "0" * 400, "-0", "1.5.2", "", " ", "true", "null",
)  # fmt: skip
WORDS = (
    "", "\0", "a" * 5000, "../../../etc/passwd", "C:\\x\\a.jpg", "\ud800", "\ufeff", "\u202e", "\x1b[31m", "{}", "[]",
    "%2e%2e/%00", "file:///etc/passwd", "http://[", "a\nb", "&lt;&amp;", "train", "images", "NaN", "\U0001f600", "<a>",
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_TOKEN = re.compile(rb"[A-Za-z_]{2,}|[{}\[\]<>:,;=\"'&*\n ]")
_FEW = 4


def mutated(data: bytes, random: Random) -> bytes:
    """The content of a file with one to some damages, which suit its kind."""
    for _ in range(random.randint(1, _FEW)):
        inside = damage_for(data)
        data = inside(data, random, _damaged) if inside and random.randint(0, 3) else _damaged(data, random)
        if len(data) > 1 << 20:
            data = data[: 1 << 20]
    return data


def _damaged(data: bytes, random: Random) -> bytes:
    damaged: bytes = random.choice(_ways(data))(data, random)
    return damaged


def _ways(data: bytes) -> list[Any]:
    if b"\0" in data[:512] or not data:
        return [_flip, _flip, _overwrite, _cut, _repeat, _move, _insert, _little_number]
    start = data.lstrip()[:1]
    ways = [_number, _number, _number, _token, _line, _line, _cut, _repeat, _insert, _flip, _word]
    return [*ways, *[_json] * 8] if start in (b"{", b"[") else ways


def _position(data: bytes, random: Random) -> int:
    return random.randint(0, max(0, len(data) - 1))


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return b"\0"
    at = _position(data, random)
    return data[:at] + bytes([data[at] ^ 1 << random.randint(0, 7)]) + data[at + 1 :]


def _overwrite(data: bytes, random: Random) -> bytes:
    at = _position(data, random)
    new = random.choice((b"\0", b"\xff", b"\x7f\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80", b"\x7f\xff\xff\xff"))
    return data[:at] + new + data[at + len(new) :]


def _little_number(data: bytes, random: Random) -> bytes:
    """A field of a header becomes another number, in either order of bytes."""
    at, length = random.randint(0, min(len(data), 200)), random.choice((2, 4, 8))
    number = random.choice((0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62)) % (1 << 8 * length)
    return data[:at] + number.to_bytes(length, random.choice(("little", "big"))) + data[at + length :]


def _cut(data: bytes, random: Random) -> bytes:
    start = _position(data, random)
    end = len(data) if random.randint(0, 1) else start + random.randint(0, 64)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start = _position(data, random)
    part = data[start : start + random.choice((1, 4, 16, 256))]
    return data[:start] + part * random.choice((2, 3, 50)) + data[start:]


def _move(data: bytes, random: Random) -> bytes:
    a, b = _position(data, random), _position(data, random)
    part = data[a : a + random.choice((4, 16, 256))]
    return data[:b] + part + data[b + len(part) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _position(data, random)
    return data[:at] + bytes(random.randint(0, 255) for _ in range(random.randint(1, 8))) + data[at:]


def _number(data: bytes, random: Random) -> bytes:
    return _replace(data, _NUMBER, random.choice(NUMBERS), random)


def _word(data: bytes, random: Random) -> bytes:
    return _replace(data, _TOKEN, random.choice(WORDS), random)


def _token(data: bytes, random: Random) -> bytes:
    found = _TOKEN.findall(data)
    return _replace(data, _TOKEN, found[random.randint(0, len(found) - 1)].decode() if found else "", random)


def _replace(data: bytes, pattern: re.Pattern[bytes], text: str, random: Random) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data
    match = found[random.randint(0, len(found) - 1)]
    return data[: match.start()] + text.encode("utf-8", "surrogatepass") + data[match.end() :]


def _line(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    a, b = random.randint(0, len(lines) - 1), random.randint(0, len(lines) - 1)
    way = random.randint(0, 3)
    if way == 0:
        lines[a], lines[b] = lines[b], lines[a]
    elif way == 1:
        lines.insert(a, lines[b])
    elif way == 2:
        del lines[a]
    else:
        lines[a] *= random.choice((2, 3, 30))
    return b"\n".join(lines)


def _json(data: bytes, random: Random) -> bytes:
    """A value anywhere in a JSON document is replaced, removed, moved, repeated or nested."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _number(data, random)
    holders = list(_holders(content))
    if not holders:
        return data
    holder, key = holders[random.randint(0, len(holders) - 1)]
    other, other_key = holders[random.randint(0, len(holders) - 1)]
    way = random.randint(0, 7)
    if way <= 3:
        holder[key] = _any_value(random)
    elif way == 4:
        del holder[key]
    elif way == 5:
        holder[key] = json.loads(json.dumps(other[other_key]))
    elif way == 6:
        holder[key] = [json.loads(json.dumps(holder[key]))] * random.choice((1, 2, 20))
    else:
        holder[key] = {random.choice(WORDS): holder[key]}
    return json.dumps(content, ensure_ascii=random.randint(0, 1) == 1).encode("utf-8", "surrogatepass")


def _holders(content: Any) -> Any:
    if isinstance(content, dict | list):
        for key, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
            yield content, key
            yield from _holders(value)


def _any_value(random: Random) -> Any:
    return random.choice(
        (
            None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 1e308, float("nan"), float("inf"), -0.5, [], {},
            [[]], [{}], [0] * 5, {"a": 1}, *NUMBERS[:18], *WORDS,
        )
    )  # fmt: skip
