"""Layers, and blocks of CNNs, that torch compiles for training (``--compile``).

Layers of one kind and of the same shapes share what is compiled, whatever their weights: a stack of twelve is compiled once.  For this,
what differs between them, such as the rate of stochastic depth, is a tensor.  Sizes of batches and lengths are variables of what is
compiled; it is compiled again where a batch has one row only, has padding where earlier ones had none, and the like.
"""

import functools
import inspect
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

LIMIT = 64  # compilations of a kind, before torch gives up and runs it as it is; by default (and before torch 2.14) 8

# Signature of every module, and the number of its hooks when it was first called
_known: "weakref.WeakKeyDictionary[nn.Module, tuple[Signature, int]]" = weakref.WeakKeyDictionary()


def call_compiled(module: nn.Module, *args: Any) -> Any:
    """Call a module by the compiled form of its kind; the first calls compile it, which takes seconds to minutes.

    A module that got hooks later, such as those of fairseq's NanDetector, is called as it is: its compiled form does not call them.

    Raises:
        UserError: torch cannot compile it, for example as there is no compiler for the device.
    """
    if module not in _known:
        if not _known:
            logger.info("--compile: torch compiles layers and blocks; the first updates take minutes")
        _known[module] = (type(module), *(tuple(weight.shape) for weight in module.parameters())), count_hooks(module)
    signature, hooks = _known[module]
    if count_hooks(module) != hooks:
        return module(*args)
    try:
        return _compiled(signature)(module, *args)
    except _failures() as error:
        inner = getattr(error, "inner_exception", error)  # of torch's code generation
        reason = f"{type(inner).__name__}: {str(inner).strip() or 'no reason given'}".splitlines()[0]
        raise UserError(f"--compile: torch cannot compile {type(module).__name__}: {reason}; train without it") from error


def count_hooks(module: nn.Module) -> int:
    """The number of forward and backward hooks of a module and of those within it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(each, kind)) for each in module.modules() for kind in kinds)


def _call(module: nn.Module, *args: Any) -> Any:
    return module(*args)


@functools.cache
def _compiled(signature: Signature) -> Callable[..., Any]:
    """The compiled form of modules of a signature: a function with code of its own, by which torch counts compilations."""
    code = _call.__code__.replace(co_name=f"call_{signature[0].__name__}")
    limit: dict[str, Any] = {"recompile_limit": LIMIT} if "recompile_limit" in inspect.signature(torch.compile).parameters else {}
    return torch.compile(types.FunctionType(code, _call.__globals__), dynamic=True, **limit)


@functools.cache
def _failures() -> tuple[type[Exception], ...]:
    import torch._dynamo.exc as exceptions  # takes seconds: only where something is compiled

    return tuple(getattr(exceptions, name) for name in FAILURES if hasattr(exceptions, name))
