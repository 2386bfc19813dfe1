"""What builders of benchmarks share: ``files`` reads a data set's own files, ``frame`` makes tables
of them and says what differs.

``answers`` chooses candidate answers and weighs them, ``clips`` cuts segments out of videos.
"""
