"""What a test leaves: its folder, tables of metrics, pictures, a page, a video, and the comparison of several tests."""
