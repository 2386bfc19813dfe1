"""Tables, examples and batches."""
