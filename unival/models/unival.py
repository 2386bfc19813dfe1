"""The model and its named architectures, registered with fairseq."""

import contextlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from fairseq.models import FairseqEncoderDecoderModel, register_model, register_model_architecture
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _IncompatibleKeys

from unival.backbones.prepared import prepare
from unival.checkpoints.names.published import is_published, rename_published
from unival.checkpoints.shapes import media_of_weights
from unival.errors import UserError, counted, flag
from unival.modalities import media_of, with_media
from unival.modalities.composed import MediaOptions
from unival.models.config import FOLLOWING, StackConfig, UnivalConfig, check_counts
from unival.models.cpu import is_slow
from unival.models.decoder import UnivalDecoder
from unival.models.encoder import UnivalEncoder
from unival.models.feed_forward import FeedForward
from unival.models.fitting import MEDIA_PREFIX, fit_to_checkpoint, renamed
from unival.models.inference import convert
from unival.models.peft import add_peft
from unival.models.token_embeddings import TokenEmbeddings
from unival.text import split_names

logger = logging.getLogger(__name__)

# Pattern of the checkpoint keys that an option adds -> the option
KEYS_OF_OPTIONS = {
    r"attn\.input_norm\.": "--attention-input-norm",
    r"attn\.[qk]_norm\.": "--qk-norm",
    r"media\.\w+\.norm\.": "--modality-layernorm for these media (--modality-layernorm-media)",
    r"\.w_resid$": "--scale-resids",
    r"\.lora\.": "--peft lora",
    r"\.adapter\.": "--peft adapters",
    r"\.prefix\.": "--peft prefix",
}

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
        "video_backbone": "resnext3d14",
        "audio_backbone": "cnn6",
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
    """One sequence-to-sequence model for images, videos, audio and text."""

    def __init__(self, cfg: UnivalConfig, encoder: UnivalEncoder, decoder: UnivalDecoder):
        super().__init__(encoder, decoder)
        self.cfg = cfg
        self.inference_type = "fp32"  # a key of unival.models.inference.TYPES, for prepare_for_inference_
        self.keeps_to_checkpoint = False  # True: built for one checkpoint, see fit_to_checkpoint
        self.weights_instead: Mapping[str, Tensor] | None = None  # of the same checkpoint, loaded in place of those that fairseq gives
        backbones = [module for media in encoder.media.values() for module in media.get_submodule("backbone").modules()]
        initialise(self, cfg.init_std, skip=backbones)
        if cfg.freeze_token_embeddings:
            encoder.embed_tokens.weight.requires_grad_(False)
        add_peft(self)  # after the initialisation of all others, which it leaves as it is

    @classmethod
    def build_model(cls, cfg: UnivalConfig, task: Any) -> "UnivalModel":
        """Build the model for a task's dictionary."""
        dictionary = task.source_dictionary
        check_counts(cfg)
        for side, heads in (("encoder", cfg.encoder_attention_heads), ("decoder", cfg.decoder_attention_heads)):
            if cfg.encoder_embed_dim % heads:
                raise UserError(
                    f"--{side}-attention-heads {heads} does not divide --encoder-embed-dim {cfg.encoder_embed_dim}"
                )
        for name in FOLLOWING:
            if cfg[name] is None:
                cfg[name] = getattr(MediaOptions(), name)
        embed_tokens = TokenEmbeddings(len(dictionary), cfg.encoder_embed_dim, padding_idx=dictionary.pad())
        encoder = UnivalEncoder(cfg, dictionary, embed_tokens, cls.build_feed_forward)
        return cls(cfg, encoder, UnivalDecoder(cfg, dictionary, embed_tokens, cls.build_feed_forward))

    @classmethod
    def build_feed_forward(cls, stack: StackConfig, layer: int) -> nn.Module:
        """The feed-forward of a layer of either stack, for derived models to replace: see :class:`FeedForward`."""
        return FeedForward(stack, layer)

    def forward(
        self,
        groups: Sequence[Mapping[str, Any]],
        return_all_hiddens: bool = False,
        features_only: bool = False,
        contexts: Sequence[contextlib.AbstractContextManager[Any]] | None = None,
    ) -> tuple[Tensor | list[Tensor], dict[str, Any]]:
        """Logits ``b x t x v`` of the target given the source, for all groups of a batch in one pass: DDP sees one forward, one backward.

        Args:
            groups: arguments of :meth:`forward_group`, one dict per kind of media; their rows follow each other.
            return_all_hiddens: keep the states of all layers, of a single group.
            features_only: return features ``b x t x c`` instead, as a list if there are several groups.
            contexts: one for each group, in which it is run.

        Returns:
            Logits, padded with 0 where a group's targets are shorter than the longest, or features; and the decoder's dict.
        """
        options: dict[str, Any] = {"return_all_hiddens": return_all_hiddens, "features_only": features_only}
        outputs = []
        for group, context in zip(groups, contexts or [contextlib.nullcontext()] * len(groups), strict=True):
            with context:
                outputs.append(self.forward_group(**group, **options))
        if len(outputs) == 1:
            return outputs[0]
        parts = [part for part, _ in outputs]
        extra: dict[str, Any] = {"attn": None}
        shares = [extra["auxiliary_loss"] * len(part) for part, extra in outputs if "auxiliary_loss" in extra]
        if shares:  # a loss per token: the mean over groups, weighted by their rows
            extra["auxiliary_loss"] = torch.stack(shares).sum() / sum(map(len, parts))
        if features_only:
            return parts, extra
        longest = max(part.size(1) for part in parts)
        return torch.cat([F.pad(part, (0, 0, 0, longest - part.size(1))) for part in parts]), extra

    def forward_group(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        media: list[dict[str, Any]] | None = None,
        code_masks: Tensor | None = None,
        target_rows: Tensor | None = None,
        return_all_hiddens: bool = False,
        features_only: bool = False,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits ``b x t x v`` of rows with the same kinds of media; arguments as in the encoder's and decoder's ``forward``.

        With ``target_rows`` (b), sources have several targets each: it says which source, encoded once, every row of the decoder has.
        With ``features_only``, features ``b x t x c`` instead: :meth:`output_layer` makes logits of those that are needed.
        """
        with self.autocast(src_tokens.device):
            encoder_out = self.encoder(src_tokens, src_lengths, media, code_masks, return_all_hiddens)
            if target_rows is not None:
                encoder_out = encoder_out.reorder(target_rows)
            more = {"features_only": features_only, "return_all_hiddens": return_all_hiddens}
            return self.decoder(prev_output_tokens, encoder_out, code_masks, **more)

    def output_layer(self, features: Tensor, tokens: Tensor | slice | None = None, **unused: Any) -> Tensor:
        """Features ``… x c`` -> logits ``… x v``, or those of some tokens only: see :meth:`UnivalDecoder.output_layer`."""
        with self.autocast(features.device):
            return self.decoder.output_layer(features, tokens)

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 in training with ``--autocast-bf16``, otherwise the caller's autocast; none on a CPU that it would only slow down."""
        if self.training and self.cfg.autocast_bf16:
            dtype = torch.bfloat16
        elif torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        else:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype, enabled=not is_slow(device.type, dtype))

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq's hook, which its commands for generation call after loading."""
        super().prepare_for_inference_(cfg)
        if self.inference_type == "fp32":  # as it was loaded: fairseq's --fp16 halved it
            prepare(self)
        else:
            convert(self, self.inference_type)

    def load_backbones(self) -> None:
        """Load the files that ``--image-backbone-weights`` and the same options of other modalities name.

        Raises:
            UserError: a file does not fit its backbone, or the model does not take that modality.
        """
        self._check_flags()
        for name, media in with_media().items():
            network = media.network
            path = self.cfg[network.weights] if network else None
            if network is None or path is None:
                continue
            if name not in self.encoder.media:
                raise UserError(f"{flag(network.weights)} {path}: the model takes no {name}, it has {self.has}")
            from unival.checkpoints.backbones import backbone_weights

            backbone = self.encoder.media[name].get_submodule("backbone")
            own = backbone.state_dict()
            shapes = {key: tuple(value.shape) for key, value in own.items()}
            inflate = bool(network.inflated and self.cfg[network.inflated])
            state, notes = backbone_weights(path, name, shapes, inflate=inflate)
            network.check(path, state, own, self.cfg)
            backbone.load_state_dict(state)
            logger.info("%s CNN from %s%s", name, path, "".join(f"; {note}" for note in notes))

    @property
    def has(self) -> str:
        """The media that the model takes, for messages."""
        return ", ".join(self.encoder.media) or "only text"

    def _check_flags(self) -> None:
        """Refuse options without effect: for media that the model does not take, or without an option that they need."""
        cfg = self.cfg
        for name, media in with_media().items():
            network = media.network
            if network and cfg[network.frozen] and name not in self.encoder.media:
                raise UserError(f"{flag(network.frozen)}: the model takes no {name}, it has {self.has}")
            if network and network.inflated and cfg[network.inflated] and cfg[network.weights] is None:
                raise UserError(f"{flag(network.inflated)}: give {flag(network.weights)} FILE, a 2-D network to inflate")
            if media.sampled and cfg[media.sampled] < 0:
                raise UserError(f"{flag(media.sampled)} {cfg[media.sampled]}: give a number of patches, or 0 for all")
        normed = split_names(cfg.modality_layernorm_media or "")
        if normed and not cfg.modality_layernorm:
            raise UserError(f"--modality-layernorm-media {cfg.modality_layernorm_media}: give --modality-layernorm, too")
        for name in [name for name in normed if name not in self.encoder.media]:
            raise UserError(f"--modality-layernorm-media {name}: the model takes no {name}, it has {self.has}")

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Accept the published checkpoint keys (see ``unival.checkpoints.names.published``)."""
        if is_published(state_dict):
            rename_published(state_dict)

    def load_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        strict: bool = True,
        model_cfg: Any = None,
        args: Any = None,
        assign: bool = False,
    ) -> Any:
        """Copy weights into this model; its modules stay the same objects.  A misfit is reported key by key.

        Args:
            state_dict: weights with this package's keys or the published ones; not changed.
            strict: the keys must be exactly those of the model.
            model_cfg, args: given by fairseq's trainer and commands when they load a checkpoint: then model and checkpoint are first made
                to take the same media, see :func:`unival.models.fitting.fit_to_checkpoint`.
            assign: as in torch.

        Returns:
            torch's named tuple ``missing_keys, unexpected_keys``; both are empty if ``strict``.

        Raises:
            UserError: keys are missing or unexpected (if ``strict``), or shapes differ.
        """
        is_checkpoint = model_cfg is not None or args is not None
        strict = strict or (is_checkpoint and self.keeps_to_checkpoint)  # which is built without initial values
        if is_checkpoint and self.weights_instead is not None:
            state_dict, self.weights_instead = self.weights_instead, None
        state = fit_to_checkpoint(self, state_dict) if is_checkpoint else renamed(self, state_dict)
        own = self.state_dict()
        shapes = [
            f"{key} is {tuple(value.shape)}, the model's is {tuple(own[key].shape)}"
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ]
        missing, unexpected = [key for key in own if key not in state], [key for key in state if key not in own]
        problems = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected] if strict else []
        problems += shapes
        if problems:
            shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
            raise UserError(f"the checkpoint does not fit this model ({counted(len(problems), 'key')}): {shown}{self._hint(state)}")
        for name in self.encoder.media:
            network = media_of(name).network
            difference = network.compare(_of_backbone(name, state), _of_backbone(name, own), self.cfg) if network else None
            if difference:
                logger.warning(difference)
        nn.Module.load_state_dict(self, state, strict=False, assign=assign)  # checked above, with better messages
        return _IncompatibleKeys(missing, unexpected)

    def _hint(self, state_dict: Mapping[str, Tensor]) -> str:
        found = media_of_weights(state_dict)
        if foreign := sorted(found - set(self.encoder.media)):
            return f" (the model takes no {', '.join(foreign)}: unival.models.fitting.fit_to_checkpoint leaves that out)"
        absent = sorted(set(self.encoder.media) - found)
        if absent:
            names = ",".join(absent)
            return f" (the checkpoint has no {names}: give --new-modalities {names} to start with fresh parts)"
        own = self.state_dict().keys()
        for part, option in KEYS_OF_OPTIONS.items():
            more, less = (any(re.search(part, key) for key in keys) for keys in (state_dict.keys() - own, own - state_dict.keys()))
            if more or less:
                return f" (the checkpoint was trained {'with' if more else 'without'} {option})"
        key = "encoder.embed_tokens.weight"
        if key not in state_dict or state_dict[key].shape == self.encoder.embed_tokens.weight.shape:
            return ""
        table = self.encoder.embed_tokens
        return (
            f" (the checkpoint has {state_dict[key].size(0)} tokens of width {state_dict[key].size(1)}, the vocabulary and"
            f" --arch given here make {table.num_embeddings} of width {table.embedding_dim}: use the checkpoint's own)"
        )

    def max_positions(self) -> tuple[int, int]:
        """Longest source and target in tokens."""
        return self.encoder.max_positions(), self.decoder.max_positions()


def _of_backbone(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one modality's backbone, with the backbone's own keys."""
    prefix = f"{MEDIA_PREFIX}{name}.backbone."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def initialise(model: nn.Module, std: float, skip: Iterable[nn.Module] = ()) -> None:
    """BERT's initialisation: weights of linear layers and embeddings from N(0, std^2), biases 0.  Modules in ``skip`` keep theirs."""
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
