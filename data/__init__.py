"""Data sets: clip index, frames, spikes, augmentation, loaders."""
