"""--compile: layers and blocks compute what they compute without it, and those of a kind are compiled once.

Most tests leave out code generation, torch's slowest part (``aot_eager``); one has torch generate code for the CPU.
"""

import copy
import functools
import inspect
import pickle

import pytest
import torch
from torch import nn

from tests import golden, runs, tiny
from tests.models.test_invariances import text
from unival.backbones import compiling
from unival.backbones.compiling import call_compiled
from unival.backbones.recomputing import Mode, run_layer
from unival.errors import UserError
from unival.models.layers import DropPath

SHAPES = {"image": (3, 64, 64), "video": (3, 4, 64, 64), "audio": (40000,)}
LENGTHS = ((7, 4, 6), (5, 8), (6, 6, 9, 4))


def compile_with(monkeypatch, backend):
    """Collects numbers of what is compiled from now on; torch may compile under one number twice, first for any value of floats."""
    numbers = set()

    def counted(graph, inputs):
        numbers.add(str(torch._guards.CompileContext.current_compile_id()))
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    torch._dynamo.reset()
    compiling._compiled.cache_clear()
    compiling._known.clear()
    monkeypatch.setattr(compiling.torch, "compile", functools.partial(torch.compile, backend=counted))
    return numbers


@pytest.fixture
def graphs(monkeypatch):
    yield compile_with(monkeypatch, "aot_eager")
    compiling._compiled.cache_clear()
    compiling._known.clear()


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def media(count, names):
    random = torch.Generator().manual_seed(count)
    return [
        {"modality": name, "values": torch.randn(count, *SHAPES[name], generator=random), "rows": torch.arange(count)} for name in names
    ]


def step(model, vocab, lengths, names):
    """Logits, and the gradients and statistics that they leave."""
    model.zero_grad()
    torch.manual_seed(0)  # augmentation of spectrograms
    logits = model.forward_group(text(vocab, *lengths), None, text(vocab, *lengths, seed=1), media=media(len(lengths), names))[0]
    logits.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients, **{name: b.clone() for name, b in model.named_buffers()}}


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


@pytest.mark.parametrize(("name", "recompute"), [("image", True), ("video", False), ("audio", False)])
def test_logits_gradients_and_statistics_are_the_same(vocab, graphs, name, recompute, monkeypatch):
    if name == "audio":
        monkeypatch.setattr(nn.functional, "dropout", lambda x, *args, **kwargs: x)  # the audio CNN's cannot be switched off otherwise
    options = {"modalities": name, "checkpoint_activations": recompute}
    plain, compiled = (without_dropout(tiny.model(vocab, compile=on, **options)) for on in (False, True))
    for lengths in LENGTHS[:2]:
        expected, found = (step(model, vocab, lengths, [name]) for model in (plain, compiled))
        assert expected.keys() == found.keys() and len(expected) > 50
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    assert graphs


def test_layers_of_a_kind_are_compiled_once(vocab, graphs):
    """Whatever their number, their stochastic depth, the batch and its lengths; once more for batches without padding."""
    rates = {"encoder_drop_path_rate": 0.3, "decoder_drop_path_rate": 0.2, "dropout": 0.1}
    model = tiny.model(vocab, compile=True, encoder_layers=4, decoder_layers=3, image_backbone="resnet18", **rates).train()
    counts = []
    for lengths in (*LENGTHS, (9, 9, 9), (5, 5)):
        step(model, vocab, lengths, ["image"])
        counts.append(len(graphs))
    assert counts == [2 + 7, 2 + 7, 2 + 7, 4 + 7, 4 + 7]  # the CNN's first stage has one kind of blocks, the others two


def test_golden_logits(graphs):
    case = golden.case("image")
    model = golden.build_golden_model(torch.float64, compile=True)
    model.encoder.layers.train()
    model.decoder.layers.train()
    assert torch.allclose(model(golden.golden_groups(case, torch.float64))[0], case["logits"], rtol=0, atol=1e-9)
    assert graphs


def test_nothing_is_compiled_but_in_training(vocab, graphs):
    model = tiny.model(vocab, compile=True)
    step(model, vocab, LENGTHS[0], ["image"])
    assert not graphs


def test_training_makes_the_updates_it_makes_without(vocab, graphs, tmp_path):
    data = tiny.write_data(tmp_path / "data", 8, 2)
    exact = ["--dropout", "0", "--encoder-drop-path-rate", "0", "--decoder-drop-path-rate", "0", "--batch-size", "4"]
    for name, flags in (("plain", []), ("compiled", ["--compile"])):
        assert runs.train(data, tmp_path / name, *exact, *flags, "--disable-validation", "--max-update", "4") == 0
    plain, compiled = ([float(line["loss"]) for line in runs.log_lines(tmp_path / name, "gnorm")] for name in ("plain", "compiled"))
    assert len(plain) == 4 and compiled == pytest.approx(plain, rel=1e-4)
    assert graphs


def test_models_can_be_copied_and_pickled(vocab, graphs):
    model = without_dropout(tiny.model(vocab, compile=True))
    before = step(model, vocab, LENGTHS[0], [])["logits"]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(step(other, vocab, LENGTHS[0], [])["logits"], before)
    assert graphs


def test_stochastic_depth_of_compiled_layers(graphs):
    """Rows are dropped at the rate, and the others divided by the probability of keeping."""
    torch.manual_seed(0)
    for rate in (0.0, 0.25, 0.5):
        dropped = call_compiled(DropPath(rate).train(), torch.ones(4000, 2, 3))
        rows = dropped[:, 0, 0]
        assert torch.equal(dropped, rows[:, None, None].expand_as(dropped))
        torch.testing.assert_close(rows[rows != 0], torch.full_like(rows[rows != 0], 1 / (1 - rate)))
        assert float((rows == 0).double().mean()) == pytest.approx(rate, abs=0.03)
    assert len(graphs) == 1


def test_layers_with_hooks_of_a_debugger_are_called_as_they_are(vocab, graphs):
    """Every module's hook is called, as without --compile; PEFT's own hooks, which were there before, are compiled."""
    model = without_dropout(tiny.model(vocab, compile=True, peft="lora", encoder_layers=1, decoder_layers=1))
    before = step(model, vocab, LENGTHS[0], [])["logits"]
    assert len(graphs) == 2
    called = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, args, output, name=name: called.add(name))
    torch.testing.assert_close(step(model, vocab, LENGTHS[0], [])["logits"], before)
    inner = {name for name, module in model.decoder.layers[0].named_modules(prefix="decoder.layers.0")}
    assert inner <= called and len(graphs) == 2


def test_many_kinds_of_batches_do_not_end_it(graphs):
    """Torch's own limit is eight compilations."""
    if "recompile_limit" not in inspect.signature(torch.compile).parameters:
        pytest.skip("this torch has one limit for all that is compiled")
    for number in range(12):
        module = nn.Dropout(number / 100).train()  # a constant of what is compiled
        call_compiled(module, torch.ones(3, 5))
    assert len(graphs) >= 12


def test_what_cannot_be_compiled_is_told(monkeypatch):
    def refuse(graph, inputs):
        raise RuntimeError("no compiler found")

    torch._dynamo.reset()
    compiling._compiled.cache_clear()
    monkeypatch.setattr(compiling.torch, "compile", functools.partial(torch.compile, backend=refuse))
    with pytest.raises(UserError, match=r"--compile: torch cannot compile Linear: .*no compiler found.*; train without it"):
        run_layer(nn.Linear(3, 5), Mode(compile=True), torch.ones(2, 3))
    compiling._compiled.cache_clear()


def test_code_that_torch_generates(vocab, monkeypatch):
    compile_with(monkeypatch, "inductor")
    options = {"encoder_layers": 1, "decoder_layers": 1}
    plain, compiled = (without_dropout(tiny.model(vocab, compile=on, **options)) for on in (False, True))
    for model in (plain, compiled):
        model.encoder.media["image"].backbone.mode = Mode()
    expected, found = (step(model, vocab, LENGTHS[0], []) for model in (plain, compiled))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    compiling._compiled.cache_clear()
