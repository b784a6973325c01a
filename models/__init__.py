"""The network and its parts, the training step, and memory estimates."""
