"""The classifiers, a family per file; :mod:`hubel.models.registry` lists them."""
