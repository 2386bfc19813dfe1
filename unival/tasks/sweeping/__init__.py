"""Evaluation of merged models without writing them: many points, several tables, one model in memory."""
