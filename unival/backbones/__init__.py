"""Feature extractors: plain modules that know nothing of the rest of the package."""
