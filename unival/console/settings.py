"""The values of ``--set``, which several commands have."""

from collections.abc import Sequence

from unival.errors import UserError, unknown


def settings(values: Sequence[str], form: str = "OPTION=VALUE") -> dict[str, str]:
    """Read ``--set OPTION=VALUE``: option with underscores -> value; of one that is given twice, the last.

    Args:
        values: what was given.
        form: how it must look, for messages.

    Raises:
        UserError: one is not of this form.
    """
    found: dict[str, str] = {}
    for given in values:
        name, equals, value = given.partition("=")
        if not (name and equals):
            raise UserError(f"--set {given}: must be {form}")
        found[name.replace("-", "_")] = value
    return found


def settings_by_table(values: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read ``--set NAME.OPTION=VALUE``: table -> option -> value.

    Raises:
        UserError: one is not of this form, or there is no such table.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for given in values:
        place, equals, value = given.partition("=")
        name, point, option = place.rpartition(".")
        if not (name and point):
            raise UserError(f"--set {given}: must be NAME.OPTION=VALUE")
        if name not in found:
            raise UserError(f"--set {given}: {unknown('table', name, names)}")
        found[name].update(settings([f"{option}{equals}{value}"], "NAME.OPTION=VALUE"))
    return found
