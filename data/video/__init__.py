"""Read videos as frames: index and times, pixels, and doubts about their content."""
