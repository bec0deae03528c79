"""How far several annotators of the same pictures agree, and what they say together.

What belongs here: reading one set an annotator, which boxes mean the same object, coefficients of agreement, the model
of annotators' errors, consensus, the pictures worth a second look; one idea a file. What does not: label files
(:mod:`hubel.data.annotations`), faults of one set by itself (:mod:`hubel.data.checks`).

:func:`agree` is the way in, then :func:`write_consensus`.
"""

from hubel.data.agreement.agreement import Agreement, agree
from hubel.data.agreement.write_consensus import write_consensus

__all__ = ["Agreement", "agree", "write_consensus"]
