"""Who is who in a video: from the boxes of each frame to tracks.

Trackers are NumPy and SciPy alone. They know neither networks nor pictures: an appearance comes to them as vectors.
Reading videos and running detectors does not belong here.
"""

from hubel.tracking.base import Appearance, Tracked, Tracker
from hubel.tracking.factory import TRACKERS, create_tracker

__all__ = ["TRACKERS", "Appearance", "Tracked", "Tracker", "create_tracker"]
