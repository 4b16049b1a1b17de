"""What is shown of runs: figures, reports, tables, boards, scores of seeds and sweeps."""
