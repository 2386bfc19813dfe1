"""Reading and writing checkpoints: safe loading and the tables that map other people's key names to ours."""
