"""The builder's own UserError: the package's would load torch, and the builder runs with numpy and Pillow alone."""


class UserError(ValueError):
    """Raised for bad input from a user; its message names the value, the place and the alternatives."""
