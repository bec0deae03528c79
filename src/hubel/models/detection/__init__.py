"""The detectors, a family a file. Losses, suppression and scores are the task's."""

from hubel.models.detection import ssd

ARCHITECTURES = (*ssd.ARCHITECTURES,)
