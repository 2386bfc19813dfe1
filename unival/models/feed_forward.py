"""The feed-forward of a layer, which is given to it: experts of any kind can take its place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from unival.models.config import StackConfig, UnivalConfig, cfg_modalities


@dataclass(frozen=True)
class TokenAttributes:
    """What a layer knows of its tokens besides their features: what experts may be chosen by.

    ``modality`` is a LongTensor broadcastable to ``b x t`` of numbers within ``names`` (text, code and the media of the model);
    ``is_target``: tokens of the decoder.
    """

    modality: Tensor
    names: tuple[str, ...]
    is_target: bool


def token_names(cfg: UnivalConfig) -> tuple[str, ...]:
    """The modalities that a model's tokens may have, in the order of their numbers."""
    return ("text", "code", *cfg_modalities(cfg))


# The configuration of a stack and the number of a layer -> a module like FeedForward
FeedForwardFactory = Callable[[StackConfig, int], nn.Module]


class FeedForward(nn.Module):
    """``fc2(norm(gelu(fc1(norm(x)))))``, without the residual.

    What takes its place has the same ``forward``.  Its parameters, buffers and submodules are those of its layer, by the names that they
    have here: checkpoints know ``layers.0.fc1.weight``.
    """

    def __init__(self, cfg: StackConfig, layer: int = 0):
        super().__init__()
        self.fc1 = nn.Linear(cfg.embed_dim, cfg.ffn_embed_dim)
        self.fc2 = nn.Linear(cfg.ffn_embed_dim, cfg.embed_dim)
        self.ffn_layernorm = nn.LayerNorm(cfg.ffn_embed_dim)
        self.final_layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.activation_dropout = cfg.activation_dropout

    def forward(self, x: Tensor, attributes: TokenAttributes) -> tuple[Tensor, Tensor | None]:
        """``x`` b x t x c -> the same shape, and an auxiliary loss per token (a number, which the criterion adds) or None."""
        x = F.gelu(self.fc1(self.final_layer_norm(x)))
        x = F.dropout(x, self.activation_dropout, self.training)
        return self.fc2(self.ffn_layernorm(x)), None


class Layer(nn.Module):
    """A layer that is given its feed-forward.

    The layer holds what the feed-forward is made of, so that names in checkpoints do not say that it is a part of its own; the feed-forward
    looks there for it, also after somebody has replaced a module of the layer.

    Args:
        feed_forward: see :class:`FeedForward`.
    """

    HELD: ClassVar = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
    OWN: ClassVar[tuple[str, ...]] = ()  # names of the layer's other parts

    def __init__(self, feed_forward: nn.Module):
        super().__init__()
        taken = [name for name in self.OWN if hasattr(feed_forward, name)]
        assert not taken, f"a feed-forward cannot have parts named {', '.join(taken)}: its layer has"
        for held in self.HELD:
            self.__dict__[held] = feed_forward.__dict__[held]
        self._given = (feed_forward,)  # in a tuple, where torch does not count it as one more module

    @property
    def feed_forward(self) -> nn.Module:
        """What the layer was given."""
        return self._given[0]

    def train(self, mode: bool = True) -> "Layer":
        """The feed-forward trains when its layer does."""
        super().train(mode)
        self.feed_forward.training = mode
        return self


def add_auxiliary(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum of auxiliary losses, of which there may be none."""
    if total is None or more is None:
        return more if total is None else total
    return total + more
