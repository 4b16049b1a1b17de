"""The `gradweave` command, one file a sub-command. Nothing here imports JAX before the configuration is known good."""
