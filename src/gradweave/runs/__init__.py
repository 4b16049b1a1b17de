"""A run on disk: its folder, locks, metrics, provenance, checkpoint files, what is shown. Never imports JAX."""
