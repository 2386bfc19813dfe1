"""Times answers from a list by the base model: all candidates over their prefix tree, every answer whole, and beam search.

    python benchmarks/candidates.py [--rounds 3] [--answers 3129] [--batch 4] [--only fp32] [--arch unival_base]

Random weights, images and questions.  The list is as long as the published one of VQAv2; lengths of its answers, and how often they begin
alike, are made like those of such answers in GPT-2's BPE.  "whole" computes every answer by itself behind the source, whose keys and values
are computed once: that takes minutes, so it is measured on every ``--share``-th answer and multiplied.  The searches have ``--tokens``
tokens and the end of the sentence, once among as many answers of that length, once among all tokens.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
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
    text_input,
)

LENGTHS = {1: 0.42, 2: 0.38, 3: 0.14, 4: 0.04, 5: 0.015, 6: 0.005}  # tokens of an answer -> share of the answers
COMMON = 5000  # different words that answers begin or go on with
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BOS, EOS = 0, 2


def make_answers(number: int, vocabulary: int, lengths: dict[int, float], seed: int = 0) -> list[list[int]]:
    """Different answers; the n-th most frequent of their tokens occurs like 1 / n."""
    rng = np.random.default_rng(seed)
    tokens = 4 + rng.permutation(vocabulary - 4)[:COMMON]
    chances = 1 / np.arange(1, len(tokens) + 1)
    answers: set[tuple[int, ...]] = set()
    for length, share in lengths.items():
        wanted = min(len(answers) + round(share * number), number)
        while len(answers) < wanted:
            answers.add(tuple(rng.choice(tokens, length, p=chances / chances.sum()).tolist()))
    return [list(answer) for answer in sorted(answers)]


class Question:
    """A model, its dictionary and a batch."""

    def __init__(self, dtype: torch.dtype, args: argparse.Namespace) -> None:
        self.dictionary = dictionary(args.vocabulary)
        self.model = build_model(args.arch, self.dictionary, modalities="image").to(dtype)
        group = text_input(self.dictionary, args.batch, 10, 1)
        del group["prev_output_tokens"]
        group["media"] = media_input("image", (args.batch, 3, args.image_size, args.image_size))
        group["media"][0]["values"] = group["media"][0]["values"].to(dtype)
        self.sample = {"net_input": {"groups": [group]}}
        self.encoded = partial(self.model.encoder, group["src_tokens"], group["src_lengths"], group["media"])

    def generator(self, trie: Any, **options: Any) -> Any:
        from unival.generation import build_generator

        return build_generator([self.model], self.dictionary, options, trie)


@torch.no_grad()
def score_whole(question: Question, trie: Any, answers: Sequence[Sequence[int]], at_a_time: int) -> torch.Tensor:
    """Scores of answers by a forward pass over each, rows x answers; the source's keys and values are computed once."""
    model, pad = question.model, question.dictionary.pad()
    encoded = question.encoded()
    rows = encoded.hidden.size(0)
    model.decoder(torch.full((rows, 1), BOS), encoded)  # keeps the keys and values
    found = []
    for start in range(0, len(answers), at_a_time):
        chunk = answers[start : start + at_a_time]
        longest = max(map(len, chunk))
        targets = torch.tensor([[*answer, EOS] + [pad] * (longest - len(answer)) for answer in chunk]).repeat(rows, 1)
        previous = torch.cat([torch.full((len(targets), 1), BOS), targets[:, :-1]], 1)
        previous[previous == EOS] = pad
        logits, _ = model.decoder(previous, encoded.select(torch.arange(rows).repeat_interleave(len(chunk))))
        masks = trie.target_masks(targets[: len(chunk)], pad, logits.size(2)).repeat(rows, 1, 1)
        log_probs = logits.float().masked_fill(~masks, float("-inf")).log_softmax(2)
        own = log_probs.gather(2, targets.unsqueeze(2)).squeeze(2).masked_fill(targets == pad, 0.0)
        found.append(own.sum(1).view(rows, -1))
    return torch.cat(found, 1)


def scoring(dtype: torch.dtype, args: argparse.Namespace) -> Figure:
    """All candidates over the tree, and some of them whole; the scores are the same."""
    from unival.generation import Trie

    question = Question(dtype, args)
    answers = make_answers(args.answers, args.vocabulary, LENGTHS)
    trie = Trie(answers, BOS, EOS)
    generator = question.generator(trie, inference="candidates", nbest=len(answers), candidates_batch=args.candidates_batch)
    chosen = answers[:: args.share]

    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        with watch.part("encoder"), torch.no_grad():
            question.encoded()
        with watch.part("candidates"):
            rows = generator.generate([question.model], question.sample)
        with watch.part("whole"):
            whole = score_whole(question, trie, chosen, args.whole_batch)
        for row, expected in zip(rows, whole, strict=True):
            scores = {tuple(h["tokens"].tolist()[:-1]): float(h["score"]) for h in row}
            ours = torch.tensor([scores[tuple(answer)] for answer in chosen])
            assert torch.allclose(ours, expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 1.0)
        encoder = watch.parts["encoder"]
        seconds = {name: encoder + (watch.parts[name] - encoder) * times for name, times in (("candidates", 1), ("whole", args.share))}
        return {"encoder": encoder, **seconds, "whole : candidates (a ratio)": seconds["whole"] / seconds["candidates"]}

    return run


def searching(dtype: torch.dtype, args: argparse.Namespace) -> Figure:
    """Beam search among answers of one length, and as long a one among all tokens."""
    from unival.generation import Trie

    question = Question(dtype, args)
    options = {"beam": args.beam, "max_len_b": args.tokens, "unnormalized": True}
    trie = Trie(make_answers(args.answers, args.vocabulary, {args.tokens: 1.0}), BOS, EOS)
    generators = {"constrained": question.generator(trie, **options), "free": question.generator(None, min_len=args.tokens, **options)}

    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        for name, generator in generators.items():
            with watch.part(name):
                rows = generator.generate([question.model], question.sample)
            assert all(len(row[0]["tokens"]) == args.tokens + 1 for row in rows)
        seconds = watch.parts
        return {**seconds, "constrained : free (a ratio)": seconds["constrained"] / seconds["free"]}

    return run


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    ways = {"scores": scoring, f"beam {args.beam}": searching}
    note = f"{args.answers} answers, batch {args.batch}, {args.image_size} px, {args.arch}, {args.threads} threads"
    return {f"{way}, {name}": partial(build, dtype, args) for way, build in ways.items() for name, dtype in DTYPES.items()}, note


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--answers", type=int, default=3129, help="candidate answers (default: %(default)s, as published)")
    result.add_argument("--batch", type=int, default=4)
    result.add_argument("--image-size", type=int, default=480)
    result.add_argument("--candidates-batch", type=int, default=1024, help="as of generation (default: %(default)s)")
    result.add_argument("--share", type=int, default=16, help="measure every so many-th answer whole (default: %(default)s)")
    result.add_argument("--whole-batch", type=int, default=8, help="answers at a time, each for all rows (default: %(default)s)")
    result.add_argument("--tokens", type=int, default=3, help="of the searches (default: %(default)s)")
    result.add_argument("--beam", type=int, default=5)
    return model_arguments(result)


if __name__ == "__main__":
    main(__file__, parser(), figures)
