"""Registration of the model and its sizes."""

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from fairseq.models import FairseqEncoderDecoderModel, register_model, register_model_architecture
from omegaconf import OmegaConf
from torch import Tensor, nn

from unival.checkpoints.published import is_published, rename_published
from unival.errors import UserError
from unival.models.config import UnivalConfig
from unival.models.decoder import UnivalDecoder
from unival.models.encoder import UnivalEncoder

# What the named architectures change in UnivalConfig.
SIZES: dict[str, dict[str, Any]] = {
    "unival_tiny": {
        "encoder_embed_dim": 128,
        "encoder_ffn_embed_dim": 512,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_ffn_embed_dim": 512,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "image_backbone": "resnet10",
        "image_backbone_stages": 3,  # 6 x 6 patches of a 96-pixel image
        "init_std": 0.08,  # about width ** -0.5: with BERT's 0.02 such a narrow model learns to look much later
    },
    "unival_base": {},
    "unival_large": {
        "encoder_embed_dim": 1024,
        "encoder_ffn_embed_dim": 4096,
        "encoder_layers": 12,
        "encoder_attention_heads": 16,
        "decoder_ffn_embed_dim": 4096,
        "decoder_layers": 12,
        "decoder_attention_heads": 16,
        "image_backbone": "resnet152",
    },
}


@register_model("unival", dataclass=UnivalConfig)
class UnivalModel(FairseqEncoderDecoderModel):
    """One sequence-to-sequence model for images and text."""

    def __init__(self, cfg: UnivalConfig, encoder: UnivalEncoder, decoder: UnivalDecoder):
        super().__init__(encoder, decoder)
        self.cfg = cfg
        backbones = [module for media in encoder.media.values() for module in media.get_submodule("backbone").modules()]
        initialise(self, cfg.init_std, skip=backbones)
        if cfg.freeze_token_embeddings:
            encoder.embed_tokens.weight.requires_grad_(False)

    @classmethod
    def build_model(cls, cfg: UnivalConfig, task: Any) -> "UnivalModel":
        """Build the model for a task's dictionary."""
        dictionary = task.source_dictionary
        for side, heads in (("encoder", cfg.encoder_attention_heads), ("decoder", cfg.decoder_attention_heads)):
            if cfg.encoder_embed_dim % heads:
                raise UserError(
                    f"--{side}-attention-heads {heads} does not divide --encoder-embed-dim {cfg.encoder_embed_dim}"
                )
        embed_tokens = nn.Embedding(len(dictionary), cfg.encoder_embed_dim, padding_idx=dictionary.pad())
        return cls(cfg, UnivalEncoder(cfg, dictionary, embed_tokens), UnivalDecoder(cfg, dictionary, embed_tokens))

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        media: list[dict[str, Any]] | None = None,
        code_masks: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits ``b x t x v`` of the target given the source; arguments as in the encoder's and decoder's ``forward``."""
        autocast = self.training and self.cfg.autocast_bf16  # when off, an autocast around the model stays in force
        with torch.autocast(src_tokens.device.type, torch.bfloat16) if autocast else contextlib.nullcontext():
            encoder_out = self.encoder(src_tokens, src_lengths, media, code_masks, return_all_hiddens)
            return self.decoder(prev_output_tokens, encoder_out, code_masks, return_all_hiddens=return_all_hiddens)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Accept the published key names (see ``unival.checkpoints.published``)."""
        if is_published(state_dict):
            rename_published(state_dict)

    def load_state_dict(
        self, state_dict: dict[str, Tensor], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load, or explain key by key what does not fit.

        Raises:
            UserError: keys are missing or unexpected, or shapes differ.
        """
        self.upgrade_state_dict(state_dict)
        own = self.state_dict()
        problems = [f"missing {key}" for key in own if key not in state_dict]
        problems += [f"unexpected {key}" for key in state_dict if key not in own]
        problems += [
            f"{key} is {tuple(value.shape)}, the model's is {tuple(own[key].shape)}"
            for key, value in state_dict.items()
            if key in own and value.shape != own[key].shape
        ]
        if problems and strict:
            shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
            raise UserError(
                f"the checkpoint does not fit this model ({len(problems)} keys): {shown}{self._hint(state_dict)}"
            )
        return nn.Module.load_state_dict(self, state_dict, strict=False)  # checked above, with better words

    def _hint(self, state_dict: dict[str, Tensor]) -> str:
        key = "encoder.embed_tokens.weight"
        if key not in state_dict or state_dict[key].shape == self.encoder.embed_tokens.weight.shape:
            return ""
        own = self.encoder.embed_tokens
        return (
            f" (the checkpoint has {state_dict[key].size(0)} symbols of width {state_dict[key].size(1)}, the vocabulary and"
            f" --arch given here make {own.num_embeddings} of width {own.embedding_dim}: use the checkpoint's own)"
        )

    def max_positions(self) -> tuple[int, int]:
        """Longest source and target in tokens."""
        return self.encoder.max_positions(), self.decoder.max_positions()


def initialise(model: nn.Module, std: float, skip: Iterable[nn.Module] = ()) -> None:
    """BERT's initialisation: weights of linear layers and embeddings N(0, std), biases 0.  ``skip``: modules that have their own."""
    skipped = set(skip)
    for module in model.modules():
        if module in skipped or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _register(name: str, sizes: dict[str, Any]) -> None:
    def architecture(args: Any) -> None:
        given = args if OmegaConf.is_config(args) else vars(args)  # fairseq calls this with either
        for key, value in sizes.items():
            if key not in given:  # the command line wins
                setattr(args, key, value)

    register_model_architecture("unival", name)(architecture)


for _name, _sizes in SIZES.items():
    _register(_name, _sizes)
