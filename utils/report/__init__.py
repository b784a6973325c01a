"""Results of a test: folder, metric tables, pictures, report page, video, and the comparison of two tests."""
