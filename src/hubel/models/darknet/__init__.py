"""Darknet's networks: layers, graph and heads, built from the layers that a cfg describes."""
