"""The commands: one file a command, options in and plain calls out.

Nothing here computes. Command files import torch and everything slow inside their functions, so that
``--help`` answers at once.
"""
