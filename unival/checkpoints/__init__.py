"""Reading and writing checkpoints: safe loading, and the tables that map the keys of other checkpoints to ours."""
