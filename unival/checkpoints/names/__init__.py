"""Checkpoint keys, one module per source of checkpoints: its keys, and the keys or the reason for dropping them here."""
