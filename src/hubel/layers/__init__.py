"""What the papers add to torch.nn. A layer knows no architecture and no task."""
