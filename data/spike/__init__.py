"""Spike streams as arrays (T, H, W): manifest, representations, simulator."""
