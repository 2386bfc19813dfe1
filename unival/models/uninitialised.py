"""Builds models without initial values, where all of them are loaded afterwards."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

T = TypeVar("T")
RANDOM = frozenset(
    [
        *(init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_normal_, init.kaiming_uniform_),
        *(init.xavier_normal_, init.xavier_uniform_, Tensor.normal_, Tensor.uniform_),
    ]
)


class Uninitialised(TorchFunctionMode):
    """While this is open, nothing from the global random generator is written into parameters.

    Their memory is taken when something is first written to it, so that a model whose tensors are replaced (``load_state_dict`` with
    ``assign``) takes none, and the numbers need no time.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or only return the parameter that it would write to."""
        given = kwargs or {}
        if func in RANDOM and given.get("generator") is None:
            written = args[0] if args else given["tensor"]
            if isinstance(written, nn.Parameter):
                return written
        return func(*args, **given)


def without_initial_values(build: Callable[[], T]) -> T:
    """Build a model whose parameters are all loaded afterwards, and leave the global random generator as it is.

    A model that draws random numbers for anything else, such as buffers that are not in its state dict, is built with all of them, as in
    training.
    """
    before = torch.get_rng_state()
    with Uninitialised():
        model = build()
    if torch.equal(torch.get_rng_state(), before):
        return model
    torch.set_rng_state(before)
    return build()
