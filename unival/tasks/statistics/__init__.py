"""What is computed of a model on rows of a table, to merge models: statistics of batch norms, and what weighs or chooses weights."""
