"""Spike streams: descriptions, storage, timeline, planes, simulation and the doctor."""
