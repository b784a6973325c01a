"""What a network costs, and the crops, checkpointing and tiles that a machine can hold."""
