"""The console output of commands (lines, progress, errors) and their log files."""
