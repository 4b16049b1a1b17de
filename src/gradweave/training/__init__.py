"""Everything around the training loop: configuration, run folders, checkpoints, progress and the loop itself."""
