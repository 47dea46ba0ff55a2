"""Warm start, the training step, the loop around it, the matrix of runs."""
