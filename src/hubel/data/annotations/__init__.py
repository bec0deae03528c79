"""Labelled boxes, polygons and masks as annotation tools write them: readers, writers, recognition.

What belongs here: one file a format, which reads it into the records of :mod:`~hubel.data.annotations.dataset`
and writes it from them; what the formats share, one idea a file (finding pictures, faults in files, masks, what a
format cannot hold). What does not: judging labels, splitting them, tensors.
"""
