"""Processes and the machine: heartbeats, signals, folder locks, thread counts."""
