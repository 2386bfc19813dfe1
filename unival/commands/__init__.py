"""The commands of ``unival``, one module (or package) each: declare arguments, call functions of the package, print the result."""
