"""A run on disk: its folder, locks, metrics, provenance, checkpoint files, progress. Never imports JAX."""
