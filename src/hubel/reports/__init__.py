"""Figures and HTML pages made from finished numbers. Nothing is computed from a model here."""

from hubel.reports.html import write_report
from hubel.reports.report_data import AugmentationSample, TrainingReport

__all__ = ["AugmentationSample", "TrainingReport", "write_report"]
