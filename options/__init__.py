"""Every option of the project: types, defaults, units, ranges and cross-checks."""
