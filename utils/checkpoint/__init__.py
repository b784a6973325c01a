"""Checkpoints of a run: their files, KAIR's files, optimizer state, changed options."""
