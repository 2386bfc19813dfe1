"""Figures and pages that commands write: what they look like, and what several of them show."""
