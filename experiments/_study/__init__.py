"""What the studies share: their jobs, tables and figures, and the command that reproduces them."""
