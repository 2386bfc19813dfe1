"""Layers, and blocks of CNNs, that torch compiles for training (``--compile``).

Layers of one kind and of the same shapes share what is compiled, whatever their weights: a stack of twelve is compiled once.  For this,
what differs between them, such as the rate of stochastic depth, is a tensor.  Sizes of batches and lengths are variables of what is
compiled; it is compiled again where a batch has one row only, has padding where earlier ones had none, and the like.
"""

import functools
import logging
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unival.errors import UserError

logger = logging.getLogger(__name__)

Signature = tuple[Any, ...]
FAILURES = ("TorchDynamoException", "FailOnRecompileLimitHit", "TritonUnavailableError")  # of torch._dynamo.exc, as far as it has them

_signatures: "weakref.WeakKeyDictionary[nn.Module, Signature]" = weakref.WeakKeyDictionary()


def call_compiled(module: nn.Module, *args: Any) -> Any:
    """Call a module by the compiled form of its kind; the first calls compile it, which takes seconds to minutes.

    Raises:
        UserError: torch cannot compile it, for example as there is no compiler for the device.
    """
    if module not in _signatures:
        if not _signatures:
            logger.info("--compile: torch compiles layers and blocks; the first updates take minutes")
        _signatures[module] = (type(module), *(tuple(weight.shape) for weight in module.parameters()))
    try:
        return _compiled(_signatures[module])(module, *args)
    except _failures() as error:
        inner = getattr(error, "inner_exception", error)  # of torch's code generation
        reason = f"{type(inner).__name__}: {str(inner).strip() or 'no reason given'}".splitlines()[0]
        raise UserError(f"--compile: torch cannot compile {type(module).__name__}: {reason}; train without it") from error


def _call(module: nn.Module, *args: Any) -> Any:
    return module(*args)


@functools.cache
def _compiled(signature: Signature) -> Callable[..., Any]:
    """The compiled form of modules of a signature: a function with code of its own, by which torch counts compilations."""
    code = _call.__code__.replace(co_name=f"call_{signature[0].__name__}")
    return torch.compile(types.FunctionType(code, _call.__globals__), dynamic=True)


@functools.cache
def _failures() -> tuple[type[Exception], ...]:
    import torch._dynamo.exc as exceptions  # takes seconds: only where something is compiled

    return tuple(getattr(exceptions, name) for name in FAILURES if hasattr(exceptions, name))
