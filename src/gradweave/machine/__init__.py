"""The machine a run is on: processes, cores, memory, signals. Never imports JAX."""
