"""One module per command of ``unival``: arguments in, functions of the package called, result out."""
