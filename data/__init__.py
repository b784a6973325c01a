"""From files to samples: clip index, frames, spikes, augmentation, loaders."""
