"""Localization: one class and one box per image."""
