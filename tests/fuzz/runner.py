"""Feed damaged files to the readers for a given time: ``make fuzz``.

    python tests/fuzz/runner.py --minutes 60 --seed 0 [--target NAME …] [--inputs 1000000] [--out fuzz.json]

Only ``HubelError`` may come out of a reader, in bounded time and memory. Anything else is a finding: the input is kept
in ``--keep`` and named by its target and number, which give it again with the same seed. A target runs in a process of
its own, so that a crash of the interpreter is a finding as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hubel.benchmark.worker import _peak_resident_bytes

HERE = Path(__file__).resolve().parent
_HANGS_SECONDS = 120


@dataclass
class Tally:
    """What a target has been through: inputs read, those refused with an error, and the findings.

    An input that damage has left as it was, or that was read before, does not count.
    """

    inputs: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    most_megabytes: float = 0.0


class Hangs(BaseException):
    """An input takes longer than any may."""


class Session:
    """One target: its files, and an input at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        from fuzz.targets import TARGETS

        self.name = name
        self.target = TARGETS[name]
        self.tally = Tally()
        self._seen: set[int] = set()
        folder.mkdir()
        self.files = self.target.prepare(folder)
        self.sound = {path: path.read_bytes() for path in self.files}
        for path in self.files:  # sound files are read without an error
            self.target.read(path)

    def feed(self, random: Random, number: int | None = None) -> str | None:
        """Read one damaged file; returns what is wrong with how it was read."""
        from fuzz.mutation import mutated

        path = self.files[random.randint(0, len(self.files) - 1)]
        self.data = mutated(self.sound[path], random)
        self.suffix = path.suffix
        key = hash((path, self.data))
        if self.data == self.sound[path] or key in self._seen:
            return None
        self._seen.add(key)
        path.write_bytes(self.data)
        try:
            finding = self._read(path)
        finally:
            path.write_bytes(self.sound[path])
        self.tally.inputs += 1
        if finding is not None:
            self.tally.findings.append(f"{path.name}, input {number}: {finding}")
        return finding

    def _read(self, path: Path) -> str | None:
        from hubel.errors import HubelError

        before, start = _megabytes(), time.process_time()
        try:
            self.target.read(path)
        except HubelError as error:
            self.tally.refused += 1
            if len(error.message) > 2_500 or "\n" in error.message.strip():
                return f"its message has {len(error.message)} characters, or several lines: {error.message[:200]!r}"
        except Hangs:
            return f"takes more than {_HANGS_SECONDS} s"
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
        seconds, grown = time.process_time() - start, _megabytes() - before
        self.tally.slowest = max(self.tally.slowest, seconds)
        self.tally.most_megabytes = max(self.tally.most_megabytes, grown)
        if seconds > self.target.seconds:
            return f"takes {seconds:.1f} s of the processor"
        if grown > self.target.megabytes:
            return f"takes {grown:.0f} MB"
        return None


def _megabytes() -> float:
    """Peak of the process."""
    return _peak_resident_bytes() / 2**20


def _work(name: str, seed: int, first: int, count: int, until: float, keep: str, pipe: Any) -> None:
    """Inputs of one target in a process of its own; after each batch the tally is sent."""

    def hang(*_: object) -> None:
        raise Hangs

    signal.signal(signal.SIGALRM, hang)
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # files are opened many times
    with tempfile.TemporaryDirectory(prefix="hubel-fuzz-", dir=in_memory) as folder:
        session = Session(name, Path(folder, "work"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders print
        for number in range(first, first + count):
            if time.time() > until:
                break
            pipe.send(number)
            signal.alarm(_HANGS_SECONDS)
            finding = session.feed(Random(f"{seed}:{name}:{number}"), number)
            signal.alarm(0)
            if finding is not None:
                Path(keep).mkdir(exist_ok=True)
                Path(keep, f"{name}-{seed}-{number}{session.suffix}").write_bytes(session.data)
    pipe.send(session.tally)


def run(name: str, seed: int, first: int, count: int, until: float, keep: str) -> Tally:
    """Feed ``count`` inputs from number ``first`` to a target; a dead process is a finding, and the rest goes on."""
    total = Tally()
    context = multiprocessing.get_context("fork")  # what is imported here is imported once
    end = first + count
    while first < end and time.time() < until:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, seed, first, end - first, until, keep, sender))
        process.start()
        sender.close()
        last, tally = first - 1, None
        with contextlib.suppress(EOFError):
            while tally is None:
                message = receiver.recv()
                last, tally = (message, None) if isinstance(message, int) else (last, message)
        process.join()
        if tally is None:
            tally = Tally(
                inputs=last + 1 - first, findings=[f"input {last}: the process ended with {process.exitcode}"]
            )
        total.inputs += tally.inputs
        total.refused += tally.refused
        total.findings += tally.findings
        total.slowest = max(total.slowest, tally.slowest)
        total.most_megabytes = max(total.most_megabytes, tally.most_megabytes)
        if last < first and tally.findings:  # nothing was read at all
            break
        first = last + 1
    return total


def main() -> int:
    """Run the targets in turn, with an equal share of the time each, and print what was found."""
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=10**7, help="at most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--keep", default="fuzz-findings")
    parser.add_argument("--out", type=Path, help="the tallies as JSON")
    options = parser.parse_args()
    chosen = options.target or list(TARGETS)
    until = time.time() + 60 * options.minutes
    tallies: dict[str, Tally] = {}
    for index, name in enumerate(chosen):
        share = (until - time.time()) / (len(chosen) - index)
        tally = tallies[name] = run(
            name, options.seed, options.first, options.inputs, time.time() + share, options.keep
        )
        line = f"{name:22} {tally.inputs:>9,} inputs, {tally.refused:>9,} refused, {len(tally.findings)} findings"
        print(f"{line}, slowest {tally.slowest:.2f} s", flush=True)
        for finding in tally.findings[:20]:
            print(f"    {finding}", flush=True)
        if options.out:
            options.out.write_text(json.dumps({n: asdict(t) for n, t in tallies.items()}, indent=1) + "\n")
    total = sum(tally.inputs for tally in tallies.values())
    found = sum(len(tally.findings) for tally in tallies.values())
    print(f"{total:,} inputs, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "fixtures")]
    sys.exit(main())
