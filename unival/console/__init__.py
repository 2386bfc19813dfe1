"""What a person sees of a command: its lines, progress and errors on the console, and the log with everything."""
