"""Merging of checkpoints: methods as functions on tensors (``methods.METHODS``), and what reads, checks and merges whole files."""

ROWS = 1000  # of each table that something is computed on, unless another number is asked for
PASSES = 2  # over the rows that statistics of batch norms are computed again on
