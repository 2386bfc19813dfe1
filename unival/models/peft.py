"""Parameter-efficient tuning: small new parts on a model whose own weights are frozen (``--peft``).

* ``lora``: a product of two narrow matrices beside linear layers (Hu et al. 2021, arXiv:2106.09685).
* ``adapters``: bottlenecks after the sublayers (Houlsby et al. 2019, arXiv:1902.00751; after the feed-forward alone as in Pfeiffer et al.
  2020, arXiv:2005.00052).
* ``prefix``: learned keys and values before those of every attention (Li and Liang 2021, arXiv:2101.00190, without the reparametrisation).
* ``bitfit``: no new parts; the biases are trained (Ben Zaken et al. 2021, arXiv:2106.10199).

The parts hang on modules of the model by forward hooks, so that all other keys and the code of the layers stay as they are.  At first, LoRA
and adapters change no output.  A prefix has no position: its bias on the scores is 0 and it is never masked.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.checkpoints.adapters import METHODS
from unival.errors import UserError, flag, unknown
from unival.models.attention import MultiheadAttention
from unival.models.config import UnivalConfig
from unival.models.feed_forward import Layer
from unival.text import split_names

PLACES = ("attention", "feed_forward")  # where adapters are


class Lora(nn.Module):
    """The low-rank difference of a linear layer: ``alpha / rank * B A dropout(x)``, where ``B`` starts as 0.

    Args:
        linear: the layer.
        rank: rows of ``A`` and columns of ``B``.
        alpha: the scale is ``alpha / rank``.
        dropout: probability on the input.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs ``… x in`` -> difference of the outputs ``… x out``."""
        return F.linear(F.linear(self.dropout(x), self.a), self.b) * self.scale


class Bottleneck(nn.Module):
    """An adapter: ``x + up(gelu(down(x)))``, where ``up`` starts as 0.

    Args:
        dim: width of the model.
        width: width of the bottleneck.
        std: deviation of the initial weights of ``down``.
    """

    def __init__(self, dim: int, width: int, std: float):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        nn.init.normal_(self.down.weight, std=std)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """``… x c`` -> ``… x c``."""
        return x + self.up(F.gelu(self.down(x)))


class Prefix(nn.Module):
    """Learned keys and values ``h x p x d`` before those of an attention.

    Args:
        attention: the attention.
        length: ``p``, the number of keys.
        std: deviation of the initial keys and values.
    """

    def __init__(self, attention: MultiheadAttention, length: int, std: float):
        super().__init__()
        shape = attention.num_heads, length, attention.k_proj.out_features // attention.num_heads
        self.keys, self.values = (nn.Parameter(torch.empty(shape)) for _ in range(2))
        for parameter in (self.keys, self.values):
            nn.init.normal_(parameter, std=std)

    def forward(self, k: Tensor, v: Tensor, bias: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Keys and values ``b x h x s x d``, bias ``… x s`` and padding ``b x s`` (True: padded) -> the same for ``p + s`` keys."""
        pad = self.keys.size(1), 0
        k, v = (torch.cat([own.to(x.dtype).expand(x.size(0), -1, -1, -1), x], dim=2) for own, x in ((self.keys, k), (self.values, v)))
        return k, v, F.pad(bias, pad), None if padding is None else F.pad(padding, pad)


# Forward hooks: functions of this module, so that models can be copied and pickled.


def _add_lora(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + module.get_submodule("lora")(args[0])


def _adapt(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return module.get_submodule("adapter")(output)


def _adapt_feed_forward(module: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    return module.get_submodule("adapter")(output[0]), output[1]


def _prepend(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    x, k, v, bias, padding = (*args, None)[:5]
    return x, *module.get_submodule("prefix")(k, v, bias, padding)


def add_peft(model: Any) -> None:
    """Add the parts of ``--peft`` to a model that has been initialised.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`.

    Raises:
        UserError: a method or a layer is unknown, an option has a value that is not possible, or its method is not chosen.
    """
    cfg = model.cfg
    methods = split_names(cfg.peft or "")
    check_options(cfg, methods)
    layers = [*model.encoder.layers, *model.decoder.layers]
    if "lora" in methods:
        for linear in chosen_linears(layers, split_names(cfg.lora_layers)):
            linear.lora = Lora(linear, cfg.lora_rank, cfg.lora_alpha, cfg.lora_dropout)
            linear.register_forward_hook(_add_lora)
    if "prefix" in methods:
        for attention in [module for layer in layers for module in layer.modules() if isinstance(module, MultiheadAttention)]:
            attention.prefix = Prefix(attention, cfg.prefix_length, cfg.init_std)
            attention.register_forward_pre_hook(_prepend)
    if "adapters" in methods:
        for layer in layers:
            _add_adapters(layer, split_names(cfg.adapter_after), cfg)


def _add_adapters(layer: Layer, places: tuple[str, ...], cfg: Any) -> None:
    sizes = cfg.encoder_embed_dim, cfg.adapter_width, cfg.init_std
    if "attention" in places:
        for norm in [module for name, module in layer.named_children() if name.endswith("attn_ln")]:  # the last step of an attention
            norm.adapter = Bottleneck(*sizes)
            norm.register_forward_hook(_adapt)
    if "feed_forward" in places:
        layer.adapter = Bottleneck(*sizes)  # a part of the feed-forward too, which the layer shares its parts with
        layer.feed_forward.register_forward_hook(_adapt_feed_forward)


def chosen_linears(layers: list[Layer], names: tuple[str, ...]) -> Iterator[nn.Linear]:
    """The linear layers of both stacks with one of the names.

    Raises:
        UserError: a name is unknown.
    """
    found = [(path.split(".")[-1], module) for layer in layers for path, module in layer.named_modules() if isinstance(module, nn.Linear)]
    known = list(dict.fromkeys(name for name, _ in found))
    for name in names or ("",):
        if name not in known:
            raise UserError(unknown("--lora-layers", name, known, "the layers have"))
    return (module for name, module in found if name in names)


def check_options(cfg: Any, methods: tuple[str, ...]) -> None:
    """Check the options of ``--peft``.

    Raises:
        UserError: see :func:`add_peft`.
    """
    for method in methods or (() if cfg.peft is None else ("",)):
        if method not in METHODS:
            raise UserError(unknown("--peft", method, METHODS))
    for method, options in METHODS.items():
        for name in options:
            if method not in methods and cfg[name] != UnivalConfig.__dataclass_fields__[name].default:
                raise UserError(f"{flag(name)} {cfg[name]} is for --peft {method}, which is not chosen")
    if not (math.isfinite(cfg.lora_alpha) and cfg.lora_alpha > 0):
        raise UserError(f"--lora-alpha {cfg.lora_alpha}: must be a positive number")
    places = split_names(cfg.adapter_after)
    for place in places or ("",):
        if place not in PLACES:
            raise UserError(unknown("--adapter-after", place, PLACES))
