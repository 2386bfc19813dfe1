"""fairseq's beam search and sampling with forced prompts, candidate answers (a ``Trie``) and token ranges.

The search loop is fairseq's. Two parts of it are replaced: the ensemble masks the logits before they are normalised; the generator
starts with bos, takes the prompts from the batch, and ends a sentence when all candidate answers are found.

Order within a step: divide by the temperature, mask by range and ``Trie``, log-softmax, pad to -inf, length limits, prompt, repeated
n-grams. The result of a row does not depend on the other rows of the batch, whatever the options (except by the random draws of sampling).

Letters beyond the legend in ``unival/models/__init__.py``: ``r`` rows of the search, b x beam (fewer once sentences are finished).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq import search
from fairseq.data import Dictionary
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from unival.errors import UserError, counted
from unival.generation.candidates import CandidateScorer
from unival.generation.graphs import StepGraphs, step_graphs
from unival.generation.no_repeat import NoRepeat
from unival.generation.options import check_generation_options, generation_options
from unival.generation.sampling import Sampling
from unival.generation.trie import ROOT, Trie
from unival.models.decoder import UnivalDecoder
from unival.vocab import FIRST_TOKEN


class ConstrainedEnsemble(EnsembleModel):
    """fairseq's ensemble; a row's next token is constrained before its scores are normalised.

    Each row (beam) has the length of its prompt, its length limit and its state in the ``Trie``; these are reordered with the beams.

    Args:
        models: encoder-decoder models with an incremental decoder.
        dictionary: target dictionary.
        trie: candidate answers; applies after a row's prompt.
        constraint_range: (start, end) of the allowed token ids, end exclusive; eos is allowed too.
        zero_shot: mask by the ``Trie`` after normalising: scores are log-probabilities under the whole vocabulary.
        is_exact: every row has exactly as many tokens as its limit, not fewer.
        cuda_graphs: replay the models' steps as CUDA graphs.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        dictionary: Dictionary,
        trie: Trie | None,
        constraint_range: tuple[int, int] | None,
        zero_shot: bool,
        is_exact: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__(models)
        assert self.has_incremental_states(), "generation needs models with an incremental decoder"
        self.trie = trie
        self.zero_shot = zero_shot
        self.is_exact = is_exact
        self.graphs = step_graphs(models) if cuda_graphs else [None] * len(models)
        self.said: tuple[slice, ...] = ()  # allowed spans of the vocabulary; empty: no range, all is allowed
        self.outside: Tensor | None = None  # v, True: forbidden, as outside the range and not special
        self.special = [dictionary.bos(), dictionary.unk()]  # forbidden under a range
        if constraint_range is not None:
            self.said = (slice(0, FIRST_TOKEN), slice(*constraint_range))
            self.outside = torch.ones(len(dictionary), dtype=torch.bool)
            for span in self.said:
                self.outside[span] = False
        self.eos = dictionary.eos()
        self.ends: Tensor | None = None  # r x p, True: this token of the prompt is eos; None: no prompt has any
        self.stand_in = dictionary.bos()  # of eos in prompts, since fairseq ends sentences with eos
        self.prompt_lengths = torch.zeros(0, dtype=torch.long)  # r
        self.limits: Tensor | None = None  # r: most tokens, without eos; None: one limit for all, which fairseq keeps
        self.states = torch.zeros(0, dtype=torch.long)  # r: node of the Trie
        self.longest = 0  # most tokens of any row, without bos and eos

    def begin(self, prompt_lengths: Tensor, longest: int, limits: Tensor | None = None, ends: Tensor | None = None) -> None:
        """Start a batch.

        Args:
            prompt_lengths: b, number of prompt tokens that each row must start with, without bos.
            longest: most tokens that any row may have, without bos and eos.
            limits: b, most tokens that each row may have, prompt included, without eos; None: ``longest`` for all.
            ends: b x p, True: this token of the prompt is eos, which the search has ``stand_in`` for; None: no prompt has eos.
        """
        self.prompt_lengths = prompt_lengths
        self.longest = longest
        self.limits = limits
        self.ends = ends
        self.states = torch.full_like(prompt_lengths, ROOT)
        if self.trie is not None:
            self.trie.to(prompt_lengths.device)
        if self.outside is not None:
            self.outside = self.outside.to(prompt_lengths.device)

    def reorder_encoder_out(self, encoder_outs: list[Any], new_order: Tensor) -> list[Any]:
        """Select the rows ``new_order``; fairseq calls this once per step, and first to repeat each sentence for its beams."""
        self.prompt_lengths = self.prompt_lengths.index_select(0, new_order)
        self.states = self.states.index_select(0, new_order)
        self.limits = None if self.limits is None else self.limits.index_select(0, new_order)
        self.ends = None if self.ends is None else self.ends.index_select(0, new_order)
        return super().reorder_encoder_out(encoder_outs, new_order)

    def forward_decoder(
        self, tokens: Tensor, encoder_outs: list[Any], incremental_states: list[dict], temperature: float = 1.0
    ) -> tuple[Tensor, None]:
        """Log-probabilities (r x v) of the token after ``tokens`` (r x t, bos first); no attention weights."""
        step = tokens.size(1) - 1
        free = self.prompt_lengths <= step  # r, True: the prompt is over, the model chooses
        if self.ends is not None:
            said = self.ends[:, :step]
            tokens = tokens.clone()
            tokens[:, 1 : 1 + said.size(1)].masked_fill_(said, self.eos)
        if self.trie is not None and step > 0:
            moved = self.trie.advance(self.states, tokens[:, -1])
            self.states = torch.where(self.prompt_lengths < step, moved, self.states)
        log_probs = []
        for model, graphs, encoder_out, state in zip(self.models, self.graphs, encoder_outs, incremental_states, strict=True):
            logits = self.logits(model.decoder, graphs, tokens, encoder_out, state, free)
            if temperature != 1:  # half precision overflows when it is divided by a low temperature
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
            log_probs.append(self.normalize(logits, free))
        mean = log_probs[0]
        if self.models_size > 1:
            mean = torch.logsumexp(torch.stack(log_probs), dim=0) - math.log(self.models_size)
        if self.ends is not None and step < self.ends.size(1):
            due = self.ends[:, step]
            mean[due, self.stand_in] = mean[due, self.eos]
        if self.limits is not None:
            is_over = (self.limits <= step).unsqueeze(1)  # r x 1, True: the limit is reached, only eos may follow
            is_eos = torch.arange(mean.size(1), device=mean.device) == self.eos
            forbidden = is_over != is_eos if self.is_exact else is_over & ~is_eos
            mean = mean.masked_fill(forbidden, -math.inf)
        return mean, None

    def logits(self, decoder: Any, graphs: StepGraphs | None, tokens: Tensor, encoder_out: Any, state: dict, free: Tensor) -> Tensor:
        """Logits (r x v) of the next token; if all rows are under a range, those outside it are -inf and not computed."""
        if not isinstance(decoder, UnivalDecoder):
            return decoder(tokens, encoder_out=encoder_out, incremental_state=state)[0][:, -1, :]
        if tokens.size(1) == 1:
            decoder.reserve(state, 1 + self.longest)
        if graphs is not None and tokens.size(1) > 1:
            features = graphs.features(tokens, encoder_out, state)[:, -1, :]
        else:
            features = decoder(tokens, encoder_out=encoder_out, incremental_state=state, features_only=True)[0][:, -1, :]
        if not (self.said and bool(free.all())):
            return decoder.output_layer(features)
        parts = [decoder.output_layer(features, span) for span in self.said]
        logits = parts[0].new_full((len(features), len(decoder.dictionary)), -math.inf)
        for span, part in zip(self.said, parts, strict=True):
            logits[:, span] = part
        return logits

    def normalize(self, logits: Tensor, free: Tensor) -> Tensor:
        """Mask logits (r x v) and take their log-softmax; rows still in their prompt (``free``, r, is False) are not masked."""
        dtype = torch.promote_types(logits.dtype, torch.float32)  # half precision is normalised in float32
        prompted = None if bool(free.all()) else ~free.unsqueeze(1)
        scores = logits
        if self.outside is not None:
            outside = self.outside if prompted is None else self.outside & ~prompted
            scores = scores.masked_fill(outside, -math.inf)
        if self.trie is not None and not self.zero_shot:
            scores = self._within_trie(scores, prompted)
        scores = torch.log_softmax(scores, dim=-1, dtype=dtype)
        if self.trie is not None and self.zero_shot:
            scores = self._within_trie(scores, prompted)
        if self.outside is not None:
            own = scores[:, self.special].masked_fill(free.unsqueeze(1), -math.inf)
            scores[:, self.special] = own
        return scores

    def _within_trie(self, scores: Tensor, prompted: Tensor | None) -> Tensor:
        assert self.trie is not None
        masked = self.trie.mask_scores(scores, self.states)
        return masked if prompted is None else torch.where(prompted, scores, masked)


class UnivalGenerator(SequenceGenerator):
    """fairseq's generator for our batches: starts with bos and forces the prompts in ``sample["prefix_tokens"]``.

    Hypotheses are as in fairseq: per row a list, best first, of dicts with ``tokens`` (without bos, with prompt and eos), ``score``,
    ``positional_scores`` and more. With fewer candidate answers than beams, there is one hypothesis per answer.

    Args:
        models: ensemble of models.
        tgt_dict: their dictionary.
        trie, constraint_range, zero_shot: see ``ConstrainedEnsemble``.
        no_repeat_ngram_size: n-grams of this size occur at most once per row (0: any number of times).
        length: number of tokens of every answer, without prompt and eos; None: the model decides.
        candidates_batch: score every candidate answer instead of searching, so many tokens at a time; None: search.
        cuda_graphs: see ``ConstrainedEnsemble``.
        options: fairseq's own (beam_size, max_len_b, search_strategy, …).
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        tgt_dict: Dictionary,
        trie: Trie | None = None,
        constraint_range: tuple[int, int] | None = None,
        zero_shot: bool = False,
        no_repeat_ngram_size: int = 0,
        length: int | None = None,
        candidates_batch: int | None = None,
        cuda_graphs: bool = False,
        **options: Any,
    ) -> None:
        ensemble = ConstrainedEnsemble(models, tgt_dict, trie, constraint_range, zero_shot, length is not None, cuda_graphs)
        strategy: Any = options.get("search_strategy")
        if type(strategy) is search.Sampling:
            options["search_strategy"] = Sampling(tgt_dict, strategy.sampling_topk, strategy.sampling_topp)
        super().__init__(ensemble, tgt_dict, **options)
        if no_repeat_ngram_size > 0:
            self.repeat_ngram_blocker = NoRepeat(no_repeat_ngram_size, ensemble)
        self.trie = trie
        self.length = length
        self.candidates = None
        if candidates_batch is not None:
            assert trie is not None
            self.candidates = CandidateScorer(trie, self.pad, zero_shot, self.temperature, candidates_batch)
        self.reject_below: float | None = None  # see AnswerOptions
        is_sum = candidates_batch is not None or not self.normalize_scores
        self.lenpen = 0.0 if is_sum else self.len_penalty  # scores are sums divided by the number of tokens to this power
        self.positions = int(ensemble.max_decoder_positions()) - 1  # most tokens of a text, prompt included
        self.longest: int | None = None  # in a trial: most tokens of an answer, unless a candidate has more
        self.nbest = 1  # number of hypotheses per row that the caller wants
        self.decode: Any = None  # ids of a row -> text, box or codes, see unival.modalities.target.decode
        self.has_own_text = False  # True: its text is not what the vocabulary decodes the ids to
        self.bos = tgt_dict.bos()
        # beams are distinct, so each candidate is found once, and the search ends after the last one
        self.most_hypotheses = trie.size if trie is not None and type(self.search) is search.BeamSearch else None

    def _generate(
        self,
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
        bos_token: int | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """Search group by group; hypotheses are in the order of the batch's rows.

        ``prefix_tokens`` are prompts, b x their length, padded on the right, without bos; without them the batch's own are used.
        """
        if prefix_tokens is None:
            prefix_tokens = sample.get("prefix_tokens")
        bos_token = self.bos if bos_token is None else bos_token
        hypotheses: list[list[dict[str, Tensor]]] = []
        for group in sample["net_input"]["groups"]:
            rows = slice(len(hypotheses), len(hypotheses) + group["src_tokens"].size(0))
            prompts, forced = (None if part is None else part[rows] for part in (prefix_tokens, constraints))
            hypotheses += self._search_group(group, prompts, forced, bos_token)
        return hypotheses

    def _search_group(
        self, group: dict[str, Any], prefix_tokens: Tensor | None, constraints: Tensor | None, bos_token: int
    ) -> list[list[dict[str, Tensor]]]:
        src_tokens = group["src_tokens"]
        if prefix_tokens is None:
            lengths = torch.zeros(src_tokens.size(0), dtype=torch.long, device=src_tokens.device)
        else:
            lengths = prefix_tokens.ne(self.pad).sum(1)
            self._check_prompts(prefix_tokens, lengths)
        assert isinstance(self.model, ConstrainedEnsemble)
        if self.candidates is not None:
            self.candidates.check_room(int(lengths.max()), self.positions)
            encoder_outs = self.model.forward_encoder(group)
            return self.candidates.hypotheses(self.model.models, encoder_outs, prefix_tokens, lengths, self.nbest)
        ends = None
        if prefix_tokens is not None and bool(prefix_tokens.eq(self.eos).any()):
            ends = prefix_tokens.eq(self.eos)
            prefix_tokens = prefix_tokens.masked_fill(ends, self.model.stand_in)
        limits = self._limits(group["src_lengths"].to(lengths.device), lengths)
        self._check_room(lengths, limits)
        if self.longest is not None:
            limits = torch.minimum(limits, lengths + max(self.longest, 0 if self.trie is None else self.trie.max_length - 1))
        by_row = self.max_len_a or self.match_source_len or self.longest is not None or self.length is not None
        self.model.begin(lengths, int(limits.max()), limits if by_row else None, ends)
        # fairseq uses the ids as row numbers within the batch (diverse beams)
        sample = {"id": torch.arange(len(lengths), device=lengths.device), "net_input": group}
        hypotheses = super()._generate(sample, prefix_tokens, constraints, bos_token)
        if ends is not None:
            for row, beams in zip(ends, hypotheses, strict=True):
                for beam in beams:
                    beam["tokens"][: len(row)][row[: len(beam["tokens"])]] = self.eos
        return hypotheses

    def _limits(self, src_lengths: Tensor, prompts: Tensor) -> Tensor:
        """Most tokens of each row (b), prompt included, without eos: by its own source length (b) and prompt length (b)."""
        if self.length is not None:
            most = int(prompts.max()) + self.length
            self.max_len_a, self.max_len_b = 0, most  # for fairseq: the batch's limit
            self.max_len = max(self.positions, most) + 1  # image codes have positions of their own
            return prompts + self.length
        room = self.max_len - 1
        if self.match_source_len:
            if int(src_lengths.max()) > room:
                raise UserError(f"--match-source-len: a source has {counted(int(src_lengths.max()), 'token')}, an answer at most {room}")
            return src_lengths
        return (self.max_len_a * src_lengths.double() + self.max_len_b).long().clamp(max=room)

    def _check_prompts(self, prefix_tokens: Tensor, lengths: Tensor) -> None:
        real = torch.arange(prefix_tokens.size(1), device=lengths.device) < lengths.unsqueeze(1)
        assert bool((prefix_tokens.ne(self.pad) == real).all()), "prefix_tokens must be padded on the right"

    def _check_room(self, prompts: Tensor, limits: Tensor) -> None:
        """Refuse prompts (lengths: b) that leave no room for the longest candidate answer within the row's limit (b)."""
        if self.length is not None:
            if int(prompts.max()) > 0 and int(limits.max()) > self.positions:
                most = f"the longest prompt has {counted(int(prompts.max()), 'token')}, the answer {self.length}"
                raise UserError(f"{most}: together they exceed the {self.positions} positions of the model")
            return
        needed = prompts + (1 if self.trie is None else self.trie.max_length - 1)
        row = int((needed - limits).argmax())
        if needed[row] > limits[row]:
            answer = "" if self.trie is None else f" and the longest candidate answer has {self.trie.max_length - 1}"
            option = (
                "--match-source-len"
                if self.match_source_len
                else f"--max-len-b {self.max_len_b} (--max-len-a {self.max_len_a}, {self.max_len} positions in the model)"
            )
            raise UserError(
                f"{option} allows {counted(int(limits[row]), 'token')}, but the longest prompt has {int(prompts[row])}{answer}: needs at"
                f" least {int(needed[row])}"
            )
        if self.min_len > int(limits.min()):
            raise UserError(f"--min-len {self.min_len} is longer than the {counted(int(limits.min()), 'token')} that a row may have")

    def _prefix_tokens(
        self, step: int, lprobs: Tensor, scores: Tensor, tokens: Tensor, prefix_tokens: Tensor, beam_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Force the prompts, and apply ``--min-len`` to rows whose prompt is over, which fairseq does not do in these steps."""
        free = prefix_tokens[:, step].eq(self.pad).repeat_interleave(beam_size).unsqueeze(1)  # r x 1, True: the prompt is over
        suppressed = [] if step >= self.min_len else [self.eos]
        if self.token_indices_to_suppress is not None:
            suppressed += self.token_indices_to_suppress.tolist()
        if suppressed:
            lprobs[:, suppressed] = lprobs[:, suppressed].masked_fill(free, -math.inf)
        return super()._prefix_tokens(step, lprobs, scores, tokens, prefix_tokens, beam_size)

    def is_finished(self, step: int, unfin_idx: int, max_len: int, finalized_sent_len: int, beam_size: int) -> bool:
        """Whether a sentence is done: it has ``beam`` hypotheses, the maximum length, or all candidate answers."""
        if self.most_hypotheses is not None and finalized_sent_len >= self.most_hypotheses:
            return True
        return super().is_finished(step, unfin_idx, max_len, finalized_sent_len, beam_size)


def without_prompts(hypotheses: list[list[dict[str, Any]]], lengths: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Remove the first ``lengths[i]`` tokens, the prompt, from all hypotheses of row i, in place."""
    for length, beams in zip(lengths, hypotheses, strict=True):
        for beam in beams:
            beam["tokens"] = beam["tokens"][length:]
            beam["positional_scores"] = beam["positional_scores"][length:]
    return hypotheses


def build_generator(
    models: Sequence[nn.Module],
    dictionary: Dictionary,
    args: Any,
    trie: Trie | None = None,
    constraint_range: tuple[int, int] | None = None,
    zero_shot: bool = False,
    extra_gen_cls_kwargs: Mapping[str, Any] | None = None,
    length: int | None = None,
) -> UnivalGenerator:
    """Make a generator from fairseq's generation options.

    Args:
        models, dictionary: models of the ensemble, and their dictionary.
        args: namespace, dict or config with any of the options of fairseq's GenerationConfig and of ``AnswerOptions``; missing ones take
            their default.
        trie, constraint_range, zero_shot: see ``ConstrainedEnsemble``.
        extra_gen_cls_kwargs: further arguments of the generator, which fairseq-generate passes (for a language model).
        length: see ``UnivalGenerator``.

    Raises:
        UserError: an unknown option, a value out of range, or options that contradict each other.
    """
    options = generation_options(args)
    options.zero_shot |= zero_shot
    check_generation_options(options, dictionary, trie, constraint_range, length)
    limits = {"trie": trie, "constraint_range": constraint_range, "zero_shot": options.zero_shot, "length": length}
    candidates_batch = options.candidates_batch if options.inference == "candidates" else None
    more = {"candidates_batch": candidates_batch, "cuda_graphs": options.cuda_graphs}
    extra = {**limits, **more, **(extra_gen_cls_kwargs or {})}
    # fairseq reads the options itself, and takes nothing but the dictionary from the task
    task = argparse.Namespace(target_dictionary=dictionary)
    generator = FairseqTask.build_generator(
        task, models, options, seq_gen_cls=UnivalGenerator, extra_gen_cls_kwargs=extra
    )
    assert isinstance(generator, UnivalGenerator)
    generator.nbest, generator.reject_below = options.nbest, options.reject_below
    return generator
