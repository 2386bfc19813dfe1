"""The builder's UserError. It does not import that of the package, because the builder needs only numpy and Pillow."""


class UserError(ValueError):
    """Invalid input from a user; the message names the value, where it was given, and the alternatives."""
