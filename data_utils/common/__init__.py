"""What all builders share: ``files`` and ``json_stream`` read a data set's own files, ``questions`` and ``refs`` those of data sets
that several builders read; ``answers`` chooses candidate answers and weighs them, ``media`` looks for media files.
"""
