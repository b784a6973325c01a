"""Shared tools: files, options, metrics, tiling, evaluation, logging. Imports nothing of the project but itself."""
