"""Times generation by the base model: encoder and decoder apart, with an image and on text alone.

    python benchmarks/generation.py [--against FOLDER] [--rounds 5] [--beam 5] [--tokens 16] [--batch 4] [--arch unival_base]

Random weights and inputs, a fixed number of tokens, float32 and bfloat16 weights.  The text figure has the sizes of BART-base; where
``transformers`` is installed, its BART-base does the same work.  ``--against`` measures another commit's worktree in turns.
"""

import argparse
import importlib.util
from functools import partial
from typing import Any

import torch
from harness import (
    Builders,
    Figure,
    Stopwatch,
    arguments,
    build_model,
    dictionary,
    main,
    media_input,
    model_arguments,
    net_input,
    text_input,
)

BART_VOCABULARY = 50265
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def generation(model: Any, vocabulary: Any, group: dict[str, Any], args: argparse.Namespace) -> Figure:
    """The seconds of encoding, and of all else in a search."""
    from unival.generation.search import build_generator

    options = argparse.Namespace(beam=args.beam, min_len=args.tokens, max_len_b=args.tokens)
    model.prepare_for_inference_(argparse.Namespace(generation=options))  # as fairseq-generate does
    generator = build_generator([model], vocabulary, options)
    group = {key: value for key, value in group.items() if key != "prev_output_tokens"}
    sample = {"net_input": net_input(model.forward, group)}
    encoder_input = net_input(model.encoder.forward, group)

    @torch.no_grad()
    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        with watch.part("encoder"):
            model.encoder(**encoder_input)
        with watch.part("all"):
            found = generator.generate([model], sample, bos_token=vocabulary.bos())
        assert all(len(row[0]["tokens"]) == args.tokens + 1 for row in found)  # and the end of the sentence
        parts = watch.parts
        return {"encoder": parts["encoder"], "decoder and search": parts["all"] - parts["encoder"], "all": parts["all"]}

    return run


def bart(dtype: torch.dtype, args: argparse.Namespace) -> Figure:
    """The same by Hugging Face's BART-base, with random weights."""
    from transformers import BartConfig, BartForConditionalGeneration

    stack = {"layers": 6, "ffn_dim": 3072, "attention_heads": 12}
    sizes = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in stack.items()}
    torch.manual_seed(0)
    source = torch.randint(4, BART_VOCABULARY, (args.batch, args.source))
    model = BartForConditionalGeneration(BartConfig(d_model=768, forced_eos_token_id=None, **sizes)).to(dtype).eval()

    @torch.no_grad()
    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        with watch.part(""):
            length = {"min_new_tokens": args.tokens + 1, "max_new_tokens": args.tokens + 1}  # ours adds the end of the sentence
            model.generate(source, attention_mask=torch.ones_like(source), num_beams=args.beam, do_sample=False, **length)
        return watch.parts

    return run


def with_images(dtype: torch.dtype, args: argparse.Namespace) -> Figure:
    """Generation from an image and a short text."""
    vocabulary = dictionary(args.vocabulary)
    group = text_input(vocabulary, args.batch, 8, 1)
    group["media"] = media_input("image", (args.batch, 3, args.image_size, args.image_size))
    group["media"][0]["values"] = group["media"][0]["values"].to(dtype)
    return generation(build_model(args.arch, vocabulary, modalities="image").to(dtype), vocabulary, group, args)


def on_text(dtype: torch.dtype, args: argparse.Namespace) -> Figure:
    """Generation from text alone."""
    vocabulary = dictionary(min(args.vocabulary, BART_VOCABULARY))
    group = text_input(vocabulary, args.batch, args.source, 1)
    return generation(build_model(args.arch, vocabulary, modalities="").to(dtype), vocabulary, group, args)


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    ways = {"image": with_images, "text": on_text}
    note = f"beam {args.beam}, {args.tokens} tokens, batch {args.batch}, {args.image_size} px, {args.arch}, {args.threads} threads"
    if importlib.util.find_spec("transformers") is not None:
        ways["text by BART-base of transformers"] = bart
    else:
        note += "\ntransformers is not installed: no comparison with its BART-base"
    return {f"{way}, {name}": partial(build, dtype, args) for way, build in ways.items() for name, dtype in DTYPES.items()}, note


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--batch", type=int, default=4)
    result.add_argument("--image-size", type=int, default=384)
    result.add_argument("--source", type=int, default=64, help="tokens of the text alone (default: %(default)s)")
    result.add_argument("--tokens", type=int, default=16, help="tokens to generate (default: %(default)s)")
    result.add_argument("--beam", type=int, default=5)
    return model_arguments(result)


if __name__ == "__main__":
    main(__file__, parser(), figures)
