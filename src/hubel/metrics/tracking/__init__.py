"""How well tracks fit the truth: HOTA, the CLEAR metrics, and identity.

Everything equals TrackEval, the tool of MOTChallenge. Files are read elsewhere.
"""

from hubel.metrics.tracking.scores import SequenceScores, TrackingScores, score_sequences
from hubel.metrics.tracking.sequence import Sequence, motchallenge_rules

__all__ = ["Sequence", "SequenceScores", "TrackingScores", "motchallenge_rules", "score_sequences"]
