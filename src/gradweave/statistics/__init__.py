"""Intervals and comparisons of samples and of few seeds: arrays in, numbers out."""
