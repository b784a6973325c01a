"""What stands behind the evaluation of clips: what a clip is, who restores which frames, ensembles, LPIPS."""
