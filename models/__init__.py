"""The network, its parts, and the training step."""
