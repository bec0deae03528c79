"""The training loop, what it chooses by measuring, run folders, and evaluation.

Losses belong to the models, data and metrics to the tasks.
"""
