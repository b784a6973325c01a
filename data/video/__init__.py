"""Videos as frames: which there are and when they are shown, their pixels, what is doubtful about them."""
