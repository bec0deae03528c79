"""Record what users see of one version of hubel, and compare it with another version.

    HUBEL_DATA=... python benchmarks/behaviour.py record FILE.json [--only weights,track]
    HUBEL_DATA=... python benchmarks/behaviour.py compare FILE.json [--only weights,track] [--tolerance 1e-5]

A refactoring must not change results. Each probe runs commands and the documented Python API in new processes and
collects JSON: predictions, metrics, the files of a run, converted labels, tracks, exported networks, weights. Wording,
times, dates, paths and hubel's own version are left out. Training is repeatable: one thread, float32, channels-last.

``record`` writes all probes to a file, or with ``--only`` replaces the named ones in an existing file. ``compare`` runs
them again, lists every difference as "probe path: old → new" and exits with 1 if there are any. Numbers have to be
equal; with ``--tolerance`` they may differ by that much relative to the larger one, and hashes of arrays, whose values
are recorded as well, are not compared.

The version under test is the one that ``python -c "import hubel"`` finds: select another with ``PYTHONPATH``. Compare
on the machine that recorded: other processors and other versions of torch add in another order.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from behaviour_probes import PROBES
from behaviour_probes.differences import differences
from behaviour_probes.sandbox import Sandbox

_SHOWN = 40  # differences of a probe


def main() -> None:
    arguments = _arguments()
    old = json.loads(arguments.file.read_text()) if arguments.file.exists() else None
    if arguments.action == "compare" and old is None:
        sys.exit(f"{arguments.file} does not exist: record it first")
    with tempfile.TemporaryDirectory(prefix="behaviour-") as folder:
        sandbox = Sandbox(Path(folder).resolve())
        environment = sandbox.environment()
        _say(f"hubel {environment['version']} from {environment['path']}")
        if arguments.action == "record":
            probes = {name: _run(name, sandbox) for name in arguments.only}
            kept = old["probes"] if old else {}
            text = json.dumps({"environment": environment, "probes": {**kept, **probes}}, indent=1)
            arguments.file.write_text(text + "\n")
            return
        for name in ("torch", "numpy", "processor"):
            if environment[name] != old["environment"][name]:
                _say(f"note: recorded with {name} {old['environment'][name]}, now {environment[name]}")
        found = sum(_compare(name, old["probes"], sandbox, arguments.tolerance) for name in arguments.only)
    print(f"{found} differences" if found else "no differences")
    sys.exit(found > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default=",".join(PROBES), help=f"probes, separated by commas: {', '.join(PROBES)}")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative tolerance for numbers")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    if unknown := sorted(set(arguments.only) - set(PROBES)):
        parser.error(f"unknown probe {', '.join(unknown)}: choose among {', '.join(PROBES)}")
    return arguments


def _run(name: str, sandbox: Sandbox) -> Any:
    start = time.perf_counter()
    _say(f"{name} …")
    folder = sandbox.inside(name)
    # As in JSON: tuples are lists, keys are strings.
    result = json.loads(json.dumps(PROBES[name](folder)))
    _say(f"{name}: {time.perf_counter() - start:.1f} s")
    return result


def _compare(name: str, recorded: dict[str, Any], sandbox: Sandbox, tolerance: float) -> int:
    """Run a probe and print the differences; returns their number."""
    if name not in recorded:
        print(f"{name}: not recorded")
        return 1
    try:
        now = _run(name, sandbox)
    except Exception as error:  # the other probes are still of interest
        print(f"{name}: failed: {error}")
        return 1
    found = differences(recorded[name], now, tolerance)
    for difference in found[:_SHOWN]:
        print(f"{name} {difference}")
    if len(found) > _SHOWN:
        print(f"{name}: {len(found) - _SHOWN} more")
    if relative := [each.relative for each in found if each.relative is not None]:
        print(f"{name}: {len(relative)} numbers differ, by at most {max(relative):.2g} relative")
    return len(found)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
