"""Inter-annotator agreement: how far several annotators of the same images agree, and their consensus.

:func:`agree` is the way in, then :func:`write_consensus`.
"""

from hubel.data.agreement.agreement import Agreement, agree, write_consensus

__all__ = ["Agreement", "agree", "write_consensus"]
