"""What stands behind a run's checkpoints: their files, KAIR's files, the optimizer's state, changed options."""
