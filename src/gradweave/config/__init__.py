"""What a run is: its configuration, presets, checks, names on the command line. Never imports JAX."""
