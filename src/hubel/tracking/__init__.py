"""Who is who in a video: from the boxes of each frame to tracks.

Trackers are NumPy and SciPy alone. They know neither networks nor pictures: an appearance comes to them as vectors.
Reading videos and running detectors does not belong here.
"""

from hubel.tracking.base import Appearance, Tracker, TrackUpdate
from hubel.tracking.factory import TRACKERS, create_tracker

__all__ = ["TRACKERS", "Appearance", "TrackUpdate", "Tracker", "create_tracker"]
