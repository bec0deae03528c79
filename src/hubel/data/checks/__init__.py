"""What is wrong with a labelled data set, what is in it, and a mended copy.

What belongs here: one kind of check a file, the table of kinds, the order in which they run, and mending. What does
not: reading label files (:mod:`hubel.data.annotations`), pages and figures (:mod:`hubel.reports`).

:func:`check_data` is the way in, then :func:`apply_fixes`.
"""

from hubel.data.checks.findings import KINDS, Finding, Kind
from hubel.data.checks.fixes import FixResult, apply_fixes
from hubel.data.checks.run import Check, check_data

__all__ = ["KINDS", "Check", "Finding", "FixResult", "Kind", "apply_fixes", "check_data"]
