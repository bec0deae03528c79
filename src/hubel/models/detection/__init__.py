"""The detectors, a family a file. Losses, suppression and scores are the task's."""
