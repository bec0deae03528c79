"""Deployable files: a trained model as ONNX, OpenVINO IR or a ``torch.export`` program, checked before it is announced.

What is exported is one graph from uint8 pixels to probabilities, with all that a program needs to know of it in the
file's metadata. How pictures become these pixels is :mod:`hubel.data.preprocessing`'s; predicting does not belong here.
"""
