"""Merging of checkpoints: methods as functions on tensors (``methods.METHODS``), and what reads, checks and merges whole files."""
