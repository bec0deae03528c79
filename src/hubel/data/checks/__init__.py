"""Check a labelled data set, count what is in it, and correct a copy.

:func:`check_data` is the way in, then :func:`apply_fixes`.
"""

from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.fixes import FixResult, apply_fixes
from hubel.data.checks.run import Check, check_data

__all__ = ["KINDS", "Check", "Finding", "FixResult", "apply_fixes", "check_data"]
