"""Evaluation of clips: the clip interface, work split between processes, ensembles, LPIPS."""
