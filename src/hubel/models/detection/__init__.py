"""The detectors, a family per file, each with its losses and decoding; suppression and scores are the task's."""
