"""The feed-forward network of a layer; it is passed to the layer, so that a mixture of experts can replace it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.prepared import Linear
from unival.models.config import StackConfig, UnivalConfig, cfg_modalities


@dataclass(frozen=True)
class TokenAttributes:
    """What a layer knows about its tokens in addition to their features, for example to choose an expert.

    Attributes:
        modality: index into ``names`` per token; int64, broadcastable to ``b x t``.
        names: text, code and the media of the model.
        is_target: True in the decoder.
    """

    modality: Tensor
    names: tuple[str, ...]
    is_target: bool


def token_names(cfg: UnivalConfig) -> tuple[str, ...]:
    """The modalities that a model's tokens may have; ``TokenAttributes.modality`` indexes them."""
    return ("text", "code", *cfg_modalities(cfg))


# (configuration of the stack, index of the layer) -> a module like FeedForward
FeedForwardFactory = Callable[[StackConfig, int], nn.Module]


class FeedForward(nn.Module):
    """``fc2(norm(gelu(fc1(norm(x)))))``, without the residual.

    A replacement must have the same ``forward``.  Its parameters, buffers and submodules are registered in the layer, without a prefix:
    the checkpoint key is ``layers.0.fc1.weight``.
    """

    def __init__(self, cfg: StackConfig, layer: int = 0):
        super().__init__()
        self.fc1 = Linear(cfg.embed_dim, cfg.ffn_embed_dim)
        self.fc2 = Linear(cfg.ffn_embed_dim, cfg.embed_dim)
        self.ffn_layernorm = nn.LayerNorm(cfg.ffn_embed_dim)
        self.final_layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.activation_dropout = cfg.activation_dropout

    def forward(self, x: Tensor, attributes: TokenAttributes) -> tuple[Tensor, Tensor | None]:
        """``x`` (b x t x c) -> the same shape, and None or an auxiliary loss per token, a scalar that the criterion adds to the loss."""
        x = F.gelu(self.fc1(self.final_layer_norm(x)))
        x = F.dropout(x, self.activation_dropout, self.training)
        return self.fc2(self.ffn_layernorm(x)), None


class Layer(nn.Module):
    """A layer that is given its feed-forward.

    Layer and feed-forward share their parameters, buffers and submodules, so that checkpoint keys have no prefix for the feed-forward.
    It also uses a module that was replaced in the layer later.

    Args:
        feed_forward: see :class:`FeedForward`.
    """

    HELD: ClassVar = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
    OWN: ClassVar[tuple[str, ...]] = ()  # names of the layer's other submodules and parameters

    def __init__(self, feed_forward: nn.Module):
        super().__init__()
        taken = [name for name in self.OWN if hasattr(feed_forward, name)]
        assert not taken, f"a feed-forward cannot have parts named {', '.join(taken)}: its layer uses these names"
        for held in self.HELD:
            self.__dict__[held] = feed_forward.__dict__[held]
        self._given = (feed_forward,)  # in a tuple, so that torch does not register it as a submodule

    @property
    def feed_forward(self) -> nn.Module:
        """The feed-forward that was given to the layer."""
        return self._given[0]

    def train(self, mode: bool = True) -> "Layer":
        """Set training mode for the layer and its feed-forward."""
        super().train(mode)
        self.feed_forward.training = mode
        return self


def add_auxiliary(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum of two auxiliary losses; None stands for no loss."""
    if total is None or more is None:
        return more if total is None else total
    return total + more
