"""Rivals in the same number of environment steps: plain learning, searches, population-based training, self-tuning."""
