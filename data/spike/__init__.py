"""Spike streams: what describes them, where they lie, one axis of time, planes of them, simulated ones, a doctor."""
