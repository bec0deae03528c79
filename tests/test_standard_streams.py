"""No command fails for what a terminal's encoding does not have, or because its output was closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = r"""
import sys
from hubel.console import log, print_json
from hubel.standard_streams import make_streams_safe
make_streams_safe()
print("640 × 480 → caf\u00e9 \udce9 \U0001f337 …")
print_json({"name": "caf\u00e9 \u65e5 \udce9"})
log("note: 3 – 4")
"""


def run(encoding: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, env=environment, check=True)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("ascii", "640 x 480 -> caf\\xe9 \\udce9 \\U0001f337 ..."),
        ("ascii:strict", "640 x 480 -> caf\\xe9 \\udce9 \\U0001f337 ..."),
        ("latin-1", "640 × 480 -> caf\u00e9 \\udce9 \\U0001f337 ..."),
        ("utf-8", "640 × 480 → caf\u00e9 \\udce9 \U0001f337 …"),
    ],
)
def test_any_text_in_any_encoding(encoding: str, text: str) -> None:
    done = run(encoding)
    lines = done.stdout.decode(encoding.partition(":")[0]).splitlines()
    assert lines[0] == text
    assert json.loads(lines[1]) == {"name": "caf\u00e9 \u65e5 \udce9"}  # JSON loses nothing


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    command = f'"$0" -c "$1" {closed}'
    assert subprocess.run(["sh", "-c", command, sys.executable, PROGRAM], check=False).returncode == 0
