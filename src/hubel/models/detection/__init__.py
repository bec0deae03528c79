"""The detectors, a family a file. Losses, suppression and scores are the task's."""

from hubel.models.detection import sliding_window, ssd

ARCHITECTURES = (*sliding_window.ARCHITECTURES, *ssd.ARCHITECTURES)
