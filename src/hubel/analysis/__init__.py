"""Shapes, costs and receptive fields of any torch.nn.Module."""
