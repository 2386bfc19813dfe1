"""Searches whose steps are replayed: here a traced step stands in for the CUDA graph, which tests/test_gpu.py tries.

A trace, like a graph, is the same operations on the same tensors whatever the step, and cannot be made of a step that looks at values.
"""

import copy
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from tests import golden, runs, tiny
from tests.generation import test_golden_beams as beams
from tests.generation.test_search import same
from tests.models.test_invariances import image_item, images, text
from unival.cli import main
from unival.errors import UserError
from unival.generation import build_generator, graphs
from unival.hub import from_checkpoint

RUNS = beams.IMAGE_RUNS + beams.CLOSED_SET_RUNS + beams.TEXT_RUNS
PARTS = {"lora": "lora,adapters", "prefix": "prefix"}


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """Steps are traced on the CPU; returns the graphs' sizes in operations, one for each capture."""
    sizes = []

    def capture(work, device):
        trace = make_fx(lambda: work())()
        sizes.append(len(trace.graph.nodes))
        return trace

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "check_device", lambda device: None)
    return sizes


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def sample_of(vocab, *lengths: int, image: bool = True, codes: list[bool] | None = None, seed: int = 0) -> dict[str, Any]:
    src = text(vocab, *lengths, seed=seed)
    group = {"src_tokens": src, "src_lengths": torch.tensor(lengths)}
    if image:
        group["media"] = [image_item(images(len(lengths), seed), list(range(len(lengths))))]
    if codes is not None:
        group["code_masks"] = torch.tensor(codes)
    return {"id": torch.arange(len(lengths)), "net_input": {"groups": [group]}}


def searched(generator, models, sample):
    torch.manual_seed(0)
    rows = generator.generate(models, sample, prefix_tokens=sample.get("prefix_tokens"), bos_token=0)
    return [[(h["tokens"].tolist(), float(h["score"])) for h in row] for row in rows]


def both(vocab, models, samples, **options):
    """Every batch has the same hypotheses by one generator with graphs as by one without."""
    options = {"beam": 3, "max_len_b": 9, **options}
    plain, graphed = (build_generator(models, vocab.dictionary, {**options, "cuda_graphs": on}) for on in (False, True))
    for sample in samples:
        same(searched(graphed, models, sample), searched(plain, models, sample))


@pytest.mark.parametrize("run", RUNS)
def test_hypotheses_of_the_original(run, traced):
    model = golden.golden_model(torch.float64)
    beams.compare(model, run, cuda_graphs=True)
    assert len(traced) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam": 1},
        {"max_len_a": 0.7, "max_len_b": 2},
        {"match_source_len": True},
        {"sampling": True, "sampling_topp": 0.6},
        {"diverse_beam_groups": 3},
        {"no_repeat_ngram_size": 1, "min_len": 4},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
def test_batches_of_any_shape(vocab, options, traced):
    """Sentences end at different steps; a shape that comes again is not captured again, and sizes that are close are one shape."""
    model = tiny.model(vocab).double()
    samples = [sample_of(vocab, *lengths, seed=seed) for seed, lengths in enumerate([(9, 4, 6), (9, 5, 3), (5, 5), (9,), (9,)])]
    both(vocab, [model], samples, **options)
    assert len(traced) == 3


def test_sources_and_answers_of_any_length(vocab, traced):
    """Also just below, at and above the sizes that lengths are rounded up to."""
    model = tiny.model(vocab).double()
    for image in (True, False):
        samples = [sample_of(vocab, length, 5, image=image) for length in (62, 63, 64, 65, 66)]
        before = len(traced)
        both(vocab, [model], samples, beam=2)
        assert len(traced) - before == (1 if image else 2)  # four more tokens of the image
    for most in (30, 31, 32, 33):
        both(vocab, [model], [sample_of(vocab, 9, 4)], beam=2, min_len=most, max_len_b=most)


def test_groups_of_a_batch(vocab, traced):
    """They alternate between shapes, as batches of several kinds of media do; the latest shapes are kept."""
    model = tiny.model(vocab).double()
    samples = []
    for seed in range(3):
        sample = sample_of(vocab, 7, 5, seed=seed)
        sample["id"] = torch.arange(5)
        sample["net_input"]["groups"] += sample_of(vocab, 6, 4, 8, image=False, seed=seed)["net_input"]["groups"]
        samples.append(sample)
    both(vocab, [model], samples)
    assert len(traced) == 2
    generator = build_generator([model], vocab.dictionary, {"beam": 2, "max_len_b": 4, "cuda_graphs": True})
    for rows in range(1, 3 + graphs.KEPT):
        searched(generator, [model], sample_of(vocab, *[5] * rows))
    assert len(generator.model.graphs[0].kept) == graphs.KEPT


@pytest.mark.parametrize("codes", [[True, True], [True, False], [False, False]], ids=["codes", "mixed", "text"])
def test_targets_of_image_codes(vocab, codes):
    model = tiny.model(vocab).double()
    both(vocab, [model], [sample_of(vocab, 6, 4, codes=codes), sample_of(vocab, 6, 6, codes=codes[::-1], seed=1)], min_len=5)


@pytest.mark.parametrize("parts", PARTS)
def test_models_with_more_parts(vocab, parts):
    model = tiny.model(vocab, peft=PARTS[parts]).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora", "adapter", "prefix")):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    both(vocab, [model], [sample_of(vocab, 6, 4), sample_of(vocab, 6, 4, seed=1)])


def test_every_model_of_an_ensemble_has_a_graph(vocab, traced):
    models = [tiny.model(vocab, seed=seed).double() for seed in range(2)]
    both(vocab, models, [sample_of(vocab, 6, 4), sample_of(vocab, 6, 4, image=False)])
    assert len(traced) == 2


def test_weights_that_change_between_searches(vocab, traced):
    """In place, as by training: the same graph; other tensors: another one."""
    model = tiny.model(vocab).double()
    samples = [sample_of(vocab, 6, 4)]
    options = {"beam": 3, "max_len_b": 9}
    graphed = build_generator([model], vocab.dictionary, {**options, "cuda_graphs": True})
    before = searched(graphed, [model], samples[0])
    for change in (lambda p: p.mul_(1.1), lambda p: setattr(p, "data", p.data * 0.9)):
        with torch.no_grad():
            for parameter in model.decoder.parameters():
                change(parameter)
        found = searched(graphed, [model], samples[0])
        same(found, searched(build_generator([model], vocab.dictionary, options), [model], samples[0]))
        assert found != before
    assert len(traced) == 2


def test_what_is_not_a_number_in_one_search_does_not_reach_the_next(vocab):
    model = tiny.model(vocab).double()
    graphed = build_generator([model], vocab.dictionary, {"beam": 3, "max_len_b": 9, "cuda_graphs": True})
    expected = searched(graphed, [model], sample_of(vocab, 6, 4))
    (graph,) = graphed.model.graphs[0].kept.values()
    graph.past.fill_(float("nan"))
    assert searched(graphed, [model], sample_of(vocab, 6, 4)) == expected


def test_a_decoder_that_looks_at_values_cannot_be_captured(vocab):
    model = tiny.model(vocab).double()
    model.decoder.layers[0].register_forward_pre_hook(lambda module, args: None if args[0].sum() > 0 else args)
    graphed = build_generator([model], vocab.dictionary, {"beam": 3, "max_len_b": 9, "cuda_graphs": True})
    with pytest.raises(RuntimeError):
        searched(graphed, [model], sample_of(vocab, 6, 4))


def test_a_cpu_has_no_graphs(vocab, monkeypatch):
    monkeypatch.undo()
    model = tiny.model(vocab)
    graphed = build_generator([model], vocab.dictionary, {"beam": 3, "max_len_b": 9, "cuda_graphs": True})
    with pytest.raises(UserError, match="--cuda-graphs needs a GPU, and the model is on cpu"):
        searched(graphed, [model], sample_of(vocab, 6, 4, image=False))


def test_other_decoders_have_no_graphs():
    from tests.generation.toy import make_dictionary, make_model

    with pytest.raises(UserError, match="--cuda-graphs: only decoders of this package can be captured, not ToyDecoder"):
        build_generator([make_model()], make_dictionary(), {"cuda_graphs": True})


def test_a_generator_can_be_copied(vocab, traced):
    model = tiny.model(vocab).double()
    graphed = build_generator([model], vocab.dictionary, {"beam": 3, "max_len_b": 9, "cuda_graphs": True})
    found = searched(graphed, [model], sample_of(vocab, 6, 4))
    assert searched(copy.deepcopy(graphed), [model], sample_of(vocab, 6, 4)) == found
    assert len(traced) == 2


def test_weights_are_converted_in_the_graph(vocab, monkeypatch):
    """Under autocast a conversion is cached as long as the context lasts, and a graph lasts longer."""
    seen = []
    monkeypatch.setattr(graphs, "capture", lambda work, device: seen.append("step") or work)
    model = tiny.model(vocab)
    states = torch.is_autocast_enabled, torch.get_autocast_dtype
    model.decoder.layers[0].register_forward_pre_hook(
        lambda module, args: seen.append((torch.is_autocast_cache_enabled(), *(state("cpu") for state in states)))
    )
    graphed = build_generator([model], vocab.dictionary, {"beam": 3, "min_len": 9, "max_len_b": 9, "cuda_graphs": True})
    with torch.autocast("cpu", torch.bfloat16):
        searched(graphed, [model], sample_of(vocab, 6, 4, image=False))
        assert torch.is_autocast_cache_enabled()
    first, *later = seen  # the first step is the decoder's own
    assert first == (True, True, torch.bfloat16)
    assert later == ["step", *[(False, True, torch.bfloat16)] * 9]


def test_what_a_checkpoint_was_trained_with_does_not_bind_other_machines(tmp_path, monkeypatch):
    """Every command that generates with a checkpoint trained with --cuda-graphs works on a CPU; asking for them there fails at once."""
    monkeypatch.undo()  # no stand-in
    data = tiny.write_data(tmp_path / "data", 4, 2)
    small = ["--batch-size", "2", "--max-update", "1", "--eval-args", '{"beam": 1, "max_len_b": 3}']
    assert runs.train(data, tmp_path / "out", *small) == 0
    container = torch.load(tmp_path / "out" / "checkpoint_last.pt", weights_only=False)
    container["cfg"]["task"]["cuda_graphs"] = True
    path, (image, *_) = tmp_path / "checkpoint.pt", sorted(map(str, (data / "images").glob("valid*.png")))
    torch.save(container, path)
    model = from_checkpoint(path)
    assert len(model.caption([image], max_len_b=3)) == 1
    with pytest.raises(UserError, match="--cuda-graphs needs a GPU"):
        model.caption([image], max_len_b=3, cuda_graphs=True)
    container["cfg"]["task"]["eval_args"] = '{"beam": 1, "max_len_b": 3, "cuda_graphs": true}'
    torch.save(container, tmp_path / "by_eval_args.pt")
    assert len(from_checkpoint(tmp_path / "by_eval_args.pt").caption([image])) == 1
    table = ["--table", f"t={data / 'valid.jsonl'}"]
    for command in (
        ["run", "--path", str(path), "--max-len-b", "3", image],
        ["validate", str(data), *runs.TASK, *runs.CPU, "--path", str(path), "--batch-size", "2"],
        ["sweep", str(path), str(tmp_path / "out" / "checkpoint_last.pt"), *table, "--points", "0,1", "--out", str(tmp_path / "sweep")],
    ):
        assert main(command) == 0, command
    runs.generate(data, path, tmp_path / "generated")


def test_inference_mode_before_and_after(vocab):
    model = tiny.model(vocab).double()
    generator = build_generator([model], vocab.dictionary, {"beam": 3, "max_len_b": 9, "cuda_graphs": True})
    expected = searched(generator, [model], sample_of(vocab, 6, 4))
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            assert searched(generator, [model], sample_of(vocab, 6, 4)) == expected


@pytest.mark.parametrize("flags", [["--cuda-graphs"], ["--eval-args", '{"cuda_graphs": true}']], ids=["option", "eval-args"])
def test_training_on_a_cpu_with_graphs_ends_before_the_first_update(tmp_path, flags, capsys, monkeypatch):
    monkeypatch.undo()
    data = tiny.write_data(tmp_path / "data", 4, 2)
    assert runs.train(data, tmp_path / "out", "--batch-size", "2", "--max-update", "1", *flags) == 1
    assert "--cuda-graphs needs a GPU, and the model is on cpu" in capsys.readouterr().err
    assert not runs.log_lines(tmp_path / "out", "gnorm")
