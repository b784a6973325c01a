"""Shared tools: files, options, metrics, tiling, evaluation, logging. Imports nothing of the project but itself."""

__version__ = "0.2.0"  # of the project; pyproject.toml reads it here
