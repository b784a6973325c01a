"""The doctor for spike files: what their bits say about size, order, direction and sensor, and pictures of them."""
