"""Common parts of the studies: their jobs, tables and figures, and the command that reproduces them."""
