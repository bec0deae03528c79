"""The tasks, a folder each: how data become batches and targets, and how predictions become results and scores."""
