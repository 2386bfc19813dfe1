"""Builders of the tables of multitask pretraining: a reader for each data set, ``frame`` writes their rows, ``held_out`` removes the
images of benchmarks, ``mixture`` writes the mixture file.
"""
