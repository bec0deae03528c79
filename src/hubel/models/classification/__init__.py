"""The classifiers, a family per file; :mod:`hubel.models.registry` lists them.

Where a family's configuration does not say more, its options are:

- ``width`` and ``depth``: factors on the channels, and on the units of the stages;
- ``dropout``: fraction of features dropped before the last dense layer;
- ``norm_eps``: epsilon of batch normalization;
- ``same``: pad as TensorFlow's ``SAME`` does.
"""
