"""Where tiles lie, and which ones to try."""
