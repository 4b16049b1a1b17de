"""What is done with finished runs: measuring estimators, aggregating seeds, drawing figures, writing the report."""
