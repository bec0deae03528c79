"""Jobs in processes of their own: started, listened to, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Any

_IMPORT = "import time:"


class JobFailure(Exception):
    """A job came to nothing.

    Args:
        reason: in one line.
        lacking: whether this machine lacks what the job needs; otherwise something went wrong.
    """

    def __init__(self, reason: str, lacking: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lacking = lacking


@dataclass(frozen=True)
class Answers:
    """What a job said.

    Attributes:
        row: all its lines put together.
        times: for each key, the seconds from the start of the process until it was said.
        import_seconds: that imports took, where they were timed.
    """

    row: dict[str, Any]
    times: dict[str, float]
    import_seconds: float = 0.0


def run_job(job: dict[str, Any], environment: dict[str, str] | None = None, time_imports: bool = False) -> Answers:
    """Do a job of :mod:`hubel.runtime.benchmark.worker` in a fresh process.

    The process has a session of its own, so that Ctrl-C at the terminal reaches this process alone, which then ends
    the other.

    Args:
        job: its name under ``"job"``, and its arguments.
        environment: variables that the process has besides those of this one.
        time_imports: let Python time them, which takes some hundredths of a second in all.

    Raises:
        JobFailure: it failed, or was killed.
    """
    timed = ["-X", "importtime"] if time_imports else []
    command = [sys.executable, *timed, "-m", "hubel.runtime.benchmark.worker"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        row: dict[str, Any] = {}
        times: dict[str, float] = {}
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(job) + "\n")
            for line in process.stdout:
                elapsed = time.perf_counter() - begin
                answer = json.loads(line)
                row |= answer
                times |= dict.fromkeys(answer, elapsed)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status:
            raise _failure(status, row, said)
        return Answers(row, times, _import_seconds(said) if time_imports else 0.0)


def _import_seconds(said: IO[str]) -> float:
    """The sum of what Python says that each module took, without those that it imported: microseconds each."""
    said.seek(0)
    lines = (line.removeprefix(_IMPORT).partition("|")[0].strip() for line in said if line.startswith(_IMPORT))
    return sum(int(number) for number in lines if number.isdigit()) / 1e6


def _failure(status: int, row: dict[str, Any], said: IO[str]) -> JobFailure:
    if "fault" in row:
        reason = "; ".join(part for part in (row["fault"], row["remedy"]) if part)
        return JobFailure(reason, row["lacking"])
    last = next((line.strip() for line in reversed(_lines(said)) if line.strip()), "it said nothing")
    if status < 0:
        name = signal.Signals(-status).name
        why = ": the machine had no memory left, perhaps" if name == "SIGKILL" else f": {last}"
        return JobFailure(f"its process was ended by {name}{why}")
    return JobFailure(f"its process ended with status {status}: {last}")


def _lines(said: IO[str]) -> list[str]:
    said.seek(0)
    return [line for line in said if not line.startswith(_IMPORT)]
