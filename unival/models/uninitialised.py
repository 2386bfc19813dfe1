"""Builds models without initial values, where all of them are loaded afterwards."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

RANDOM = frozenset(
    [
        *(init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_normal_, init.kaiming_uniform_),
        *(init.xavier_normal_, init.xavier_uniform_, Tensor.normal_, Tensor.uniform_),
    ]
)


class Uninitialised(TorchFunctionMode):
    """While this is open, nothing random is written into tensors.

    Their memory is taken when something is first written to it, so that a model whose tensors are replaced (``load_state_dict`` with
    ``assign``) takes none, and the numbers need no time; the global random generator stays as it is.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or only return the tensor that it would write to."""
        given = kwargs or {}
        if func in RANDOM:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
