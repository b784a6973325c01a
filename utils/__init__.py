"""Shared tools: files, options, metrics, tiling, evaluation, logging. Imports only `options`."""

__version__ = "0.2.0"  # of the project; pyproject.toml reads it here
