"""Shared tools: files, options, metrics, tiling, evaluation, logging. Imports no other package of the project."""
