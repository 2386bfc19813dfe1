"""The one exception that means "what you gave us cannot be used": the command line prints it as a single line."""


class UserError(ValueError):
    """Raised for bad input from a user; its message names the value, the place and the alternatives."""
