"""Layers from the papers that torch.nn lacks; they are independent of architectures and tasks."""
