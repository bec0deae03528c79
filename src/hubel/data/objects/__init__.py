"""Pictures with labelled objects as training data: samples, their check, random changes that carry boxes and masks.

What belongs here: from read labels to batches of pixels and boxes. What does not: reading label files
(:mod:`hubel.data.annotations`), judging them at length (:mod:`hubel.data.checks`), which samples train
(:mod:`hubel.data.splits`), losses and scores.
"""
