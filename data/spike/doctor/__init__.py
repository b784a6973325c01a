"""The doctor for spike files: determines size, bit order, orientation and sensor health from the bits; previews."""
