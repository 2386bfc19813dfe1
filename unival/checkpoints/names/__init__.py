"""One module per source of checkpoints: which keys it has, and what becomes of them here."""
