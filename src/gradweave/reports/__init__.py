"""Figures, reports, tables and boards of runs; scores of seeds and sweeps."""
