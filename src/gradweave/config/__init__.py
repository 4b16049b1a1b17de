"""What a run is: its configuration, and the tables of what can be chosen. Nothing here imports JAX."""
