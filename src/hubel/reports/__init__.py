"""Figures and HTML pages made from finished numbers. Nothing is computed from a model here."""
