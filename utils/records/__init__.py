"""Training records besides the log: boards and profiles."""
