"""Measure how two cameras see one scene: geometry and time between spikes and frames, without a calibration target."""
