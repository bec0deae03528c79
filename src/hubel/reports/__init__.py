"""Figures and HTML pages made from finished numbers. Nothing is computed from a model here."""

from hubel.reports.page import write_report
from hubel.reports.records import AugmentationSample, DetectionMistake, Mistake, TrainingReport, most_confident_mistakes

__all__ = [
    "AugmentationSample",
    "DetectionMistake",
    "Mistake",
    "TrainingReport",
    "most_confident_mistakes",
    "write_report",
]
