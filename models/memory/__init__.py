"""Memory and time of the network, and the crops, checkpointing and tiles that fit a machine."""
