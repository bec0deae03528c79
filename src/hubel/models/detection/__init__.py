"""The detectors, a family per file. Losses, suppression and scores are the task's."""
