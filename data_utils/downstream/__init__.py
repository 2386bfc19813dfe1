"""What builders of benchmarks share: ``frame`` makes tables of a data set's rows and says what differs, ``clips`` cuts segments
out of videos.
"""
