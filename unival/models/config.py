"""Configuration of the model: one dataclass for the command line, one per stack for the modules."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import OmegaConf

from unival.errors import UserError, flag
from unival.modalities import MODALITIES, with_media
from unival.modalities.composed import MediaOptions
from unival.modalities.options import compose, declared, kept_field, owners
from unival.text import split_names


@dataclass
class CoreConfig(FairseqDataclass):
    """The options of a model that do not belong to a modality."""

    encoder_embed_dim: int = field(default=768, metadata={"help": "width of the encoder"})
    encoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "width of the encoder's feed-forward layers"})
    encoder_layers: int = field(default=6, metadata={"help": "number of encoder layers"})
    encoder_attention_heads: int = field(default=12, metadata={"help": "number of encoder attention heads"})
    decoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "width of the decoder's feed-forward layers"})
    decoder_layers: int = field(default=6, metadata={"help": "number of decoder layers"})
    decoder_attention_heads: int = field(default=12, metadata={"help": "number of decoder attention heads"})
    dropout: float = field(default=0.1, metadata={"help": "dropout probability"})
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout probability on attention weights"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout probability after the activation"})
    encoder_drop_path_rate: float = field(
        default=0.1, metadata={"help": "stochastic depth of the last encoder layer; earlier layers linearly less"}
    )
    decoder_drop_path_rate: float = field(
        default=0.1, metadata={"help": "stochastic depth of the last decoder layer; earlier layers linearly less"}
    )
    max_source_positions: int = field(default=1024, metadata={"help": "longest source text in tokens; longer ones are truncated"})
    max_target_positions: int = field(default=1024, metadata={"help": "longest target in tokens; longer ones are truncated"})
    attn_scale_factor: float = field(default=2.0, metadata={"help": "scores are divided by sqrt(factor x head width)"})
    token_bucket_size: int = field(default=256, metadata={"help": "relative-position buckets of text"})
    image_bucket_size: int = field(default=42, metadata={"help": "largest side of the patch grid"})
    modalities: Optional[str] = field(
        default=None,
        metadata={"help": "media that the model takes, e.g. image,video,audio (default: those of the instruction)"},
    )
    new_modalities: str = field(
        default="",
        metadata={
            "help": "media that a restored checkpoint need not have, e.g. video: their parts keep their initial weights"
        },
    )
    add_mm_type_embedding: bool = field(
        default=False,
        metadata={"help": "a type embedding per modality (text, image, video, audio) instead of one for all media"},
    )
    modality_layernorm: bool = field(
        default=False, metadata={"help": "a layer norm per modality after the projection of its features"}
    )
    modality_layernorm_media: Optional[str] = field(
        default=None,
        metadata={"help": "media that --modality-layernorm is for, e.g. image,audio (default: all that the model takes)"},
    )
    entangle_position_embedding: bool = field(
        default=False, metadata={"help": "also add the source's position embeddings to its tokens, as BERT does"}
    )
    entangle_target_positions: bool = field(
        default=False, metadata={"help": "also add the target's position embeddings to its tokens, as BERT does"}
    )
    interpolate_position: bool = field(
        default=False, metadata={"help": "interpolate patch positions from the original grid for larger images"}
    )
    orig_patch_image_size: int = field(
        default=256, metadata={"help": "image size of the original grid (one position per 16 pixels)"}
    )
    qk_norm: bool = field(default=False, metadata={"help": "layer norm on each head's queries and keys"})
    attention_input_norm: bool = field(
        default=False,
        metadata={"help": "one layer norm on what queries, keys and values are made from (--qk-norm of the published code)"},
    )
    scale_resids: bool = field(default=False, metadata={"help": "learned scales on the feed-forward residuals"})
    trainable: Optional[str] = field(
        default=None,
        metadata={
            "help": "train only these groups of parameters, e.g. projections: encoder, decoder, embeddings, positions, norms, biases,"
            " self_attention, cross_attention, feed_forward, projections; of a modality image, image_cnn, image_proj, image_norm,"
            " image_positions (default: all)"
        },
    )
    freeze: Optional[str] = field(
        default=None,
        metadata={
            "help": "do not train these groups of parameters, named as for --trainable, e.g. encoder,decoder: without the CNNs, projections"
            " and positions of media and the token embeddings, which are groups of their own (default: none)"
        },
    )
    peft: Optional[str] = field(
        default=None,
        metadata={
            "help": "parameter-efficient tuning: train only small new parts (lora, adapters, prefix) or the biases (bitfit), besides the"
            " groups of --trainable; several as lora,bitfit (default: none)"
        },
    )
    lora_rank: int = field(default=8, metadata={"help": "--peft lora: rank of the difference of a weight"})
    lora_alpha: float = field(default=16.0, metadata={"help": "--peft lora: the difference is scaled by alpha / rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "--peft lora: dropout probability on its input"})
    lora_layers: str = field(
        default="q_proj,v_proj",
        metadata={"help": "--peft lora: linear layers of both stacks, of q_proj,k_proj,v_proj,out_proj,fc1,fc2"},
    )
    adapter_width: int = field(default=64, metadata={"help": "--peft adapters: width of the bottlenecks"})
    adapter_after: str = field(
        default="attention,feed_forward",
        metadata={"help": "--peft adapters: the sublayers that one follows (feed_forward alone as in Pfeiffer et al.)"},
    )
    prefix_length: int = field(default=16, metadata={"help": "--peft prefix: learned keys and values before those of every attention"})
    freeze_token_embeddings: bool = field(default=False, metadata={"help": "do not train the shared token embeddings"})
    freeze_batchnorm: bool = field(
        default=False, metadata={"help": "do not train batch norms: neither their scales nor their statistics"}
    )
    init_std: float = field(
        default=0.02, metadata={"help": "deviation of the initial weights of linear layers and embeddings"}
    )
    autocast_bf16: bool = field(
        default=False,
        metadata={
            "help": "in training, compute matmuls and convolutions in bfloat16 (weights stay float32); 1.7 times as fast on CPUs "
            "with avx512_bf16 or AMX; on others float32 is faster, and is used. Evaluation is not affected"
        },
    )
    checkpoint_activations: bool = field(
        default=False, metadata={"help": "recompute layers and blocks of CNNs in the backward pass: less memory, more time"}
    )
    compile: bool = field(
        default=False,
        metadata={
            "help": "in training, run what torch.compile makes of the layers and the CNNs' blocks, which the first updates compile, in"
            " minutes; random draws (dropout) differ from those without it. Meant for GPUs: on CPUs it is no faster"
        },
    )


if TYPE_CHECKING:

    class UnivalConfig(CoreConfig):
        """The options of a model, including those of all modalities."""

        def __init__(self, **options: Any): ...

        def __getattr__(self, name: str) -> Any: ...

        def __getitem__(self, name: str) -> Any: ...
else:
    owners(MODALITIES, dict.fromkeys(CoreConfig.__dataclass_fields__, "the model"))
    UnivalConfig = compose(
        "UnivalConfig",
        __name__,
        CoreConfig,
        [kept_field(option) for modality in MODALITIES.values() for option in declared(modality.model_options)],
        "Options of ``--arch unival_*``; the named architectures only change sizes (see ``unival.models.unival.SIZES``).",
    )

# Options that change how a checkpoint's weights are used, but neither their keys nor their shapes.
SILENT_OPTIONS = (
    "attn_scale_factor",
    "entangle_position_embedding",
    "entangle_target_positions",
    "interpolate_position",
    "orig_patch_image_size",
)


# Options of the model that take their value from the task's media option of the same name.
FOLLOWING = tuple(name for name in MediaOptions.__dataclass_fields__ if name in UnivalConfig.__dataclass_fields__)


def silent_options(media: Collection[str]) -> set[str]:
    """``SILENT_OPTIONS`` and those of the modalities that a model with these media (names in lower case) uses."""
    kinds = [modality.model_options for modality in MODALITIES.values() if modality.media is None or modality.key in media]
    return {*SILENT_OPTIONS, *(option.name for kind in kinds for option in declared(kind) if option.field.metadata["silent"])}


def check_counts(cfg: UnivalConfig) -> None:
    """Check the counts and probabilities among the options of a model.

    A count is at least 1, or its default where that is less (0: no limit).

    Raises:
        UserError: an option is out of range; the first is named.
    """
    for option in fields(UnivalConfig):
        value = cfg[option.name]
        if isinstance(value, int) and not isinstance(value, bool) and value < (least := _least(option.default)):
            raise UserError(f"{flag(option.name)} {value}: must be at least {least}")
        if "drop" in option.name and not 0 <= value < 1:
            raise UserError(f"{flag(option.name)} {value:g}: must be at least 0 and below 1")


def _least(default: Any) -> int:
    return min(1, default) if isinstance(default, int) else 1


def saved_config(options: Mapping[str, Any]) -> Any:
    """The configuration saved in a checkpoint of this package; options added since have their default."""
    known = {name: options[name] for name in UnivalConfig.__dataclass_fields__ if name in options and name != "_name"}
    cfg = OmegaConf.structured(UnivalConfig(**known))
    cfg._name = "unival"
    return cfg


def cfg_modalities(cfg: UnivalConfig) -> tuple[str, ...]:
    """The media that a model takes, in lower case."""
    always = [name for name, media in with_media().items() if media.always]
    names = always if cfg.modalities is None else split_names(cfg.modalities)
    return tuple(sorted(set(names)))


@dataclass(frozen=True)
class StackConfig:
    """Configuration of one stack of layers."""

    embed_dim: int
    ffn_embed_dim: int
    layers: int
    attention_heads: int
    drop_path_rate: float
    dropout: float
    attention_dropout: float
    activation_dropout: float
    attn_scale_factor: float
    qk_norm: bool
    attention_input_norm: bool
    scale_resids: bool

    def drop_path(self, layer: int) -> float:
        """Stochastic depth of one layer: 0 at the first, the full rate at the last."""
        return self.drop_path_rate * layer / max(self.layers - 1, 1)


def _shared(cfg: UnivalConfig) -> dict[str, Any]:
    return {
        "dropout": cfg.dropout,
        "attention_dropout": cfg.attention_dropout,
        "activation_dropout": cfg.activation_dropout,
        "attn_scale_factor": cfg.attn_scale_factor,
        "qk_norm": cfg.qk_norm,
        "attention_input_norm": cfg.attention_input_norm,
        "scale_resids": cfg.scale_resids,
    }


def encoder_stack(cfg: UnivalConfig) -> StackConfig:
    """The encoder's part of the configuration."""
    return StackConfig(
        embed_dim=cfg.encoder_embed_dim,
        ffn_embed_dim=cfg.encoder_ffn_embed_dim,
        layers=cfg.encoder_layers,
        attention_heads=cfg.encoder_attention_heads,
        drop_path_rate=cfg.encoder_drop_path_rate,
        **_shared(cfg),
    )


def decoder_stack(cfg: UnivalConfig) -> StackConfig:
    """The decoder's part of the configuration (its width is the encoder's: embeddings are shared)."""
    return StackConfig(
        embed_dim=cfg.encoder_embed_dim,
        ffn_embed_dim=cfg.decoder_ffn_embed_dim,
        layers=cfg.decoder_layers,
        attention_heads=cfg.decoder_attention_heads,
        drop_path_rate=cfg.decoder_drop_path_rate,
        **_shared(cfg),
    )
