"""What a network costs and why it answers as it does; takes any torch.nn.Module."""
