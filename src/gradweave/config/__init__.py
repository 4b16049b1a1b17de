"""Configuration of a run, and the tables of its choices. Nothing here imports JAX."""
