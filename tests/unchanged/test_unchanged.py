"""What a redesign must leave as it is, against a record that was made before it: see ``make.py``, and ``parts.py`` for what is compared."""

import json

import pytest

from tests.unchanged import material, parts

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it
for needed in ("av", "soundfile", "torchaudio"):
    pytest.importorskip(needed)


def recorded(name):
    return json.loads((material.HERE / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that the command lines name, which this process works in."""
    folder = material.write(tmp_path_factory.mktemp("unchanged"))
    with material.working_in(folder):
        yield folder


def assert_close(found, expected, rel, where=""):
    """The same structure, with numbers that differ by rounding at most."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_close(found[key], expected[key], rel, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, rel, f"{where}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=1e-6), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", material.TASKS)
def test_batches(place, name):
    """Rows and their order, ids, references and media, over two epochs, on one rank and on two."""
    assert_close(json.loads(json.dumps(parts.batches(name))), recorded("batches")[name], rel=0)


@pytest.mark.parametrize("name", material.RUNS)
def test_losses(place, name):
    """Loss and gradient norm of 20 updates; sums in another order show in the norms first."""
    expected = recorded("losses")[name]
    assert len(expected) == material.UPDATES.get(name, 20) and expected[-1][0] < expected[0][0]
    found = parts.losses(name)
    assert_close([loss for loss, _ in found], [loss for loss, _ in expected], rel=2e-6)
    assert_close([norm for _, norm in found], [norm for _, norm in expected], rel=2e-5)


def test_option_names_and_defaults(place):
    """More options and choices may come; none may go or change its default."""
    found = json.loads(json.dumps(parts.all_options()))
    for whose, expected in recorded("options").items():
        now = found[whose]
        for name, default in expected.items():
            assert name in now, f"{whose}: {name} is gone"
            if whose.startswith("command "):
                default, choices = default
                assert set(choices) <= set(now[name][1]), (whose, name)
                assert now[name][0] == default, (whose, name)
            else:
                assert now[name] == default, (whose, name)


def test_checkpoint_keys(place):
    assert json.loads(json.dumps(parts.states())) == recorded("states")


def test_a_stored_run(place):
    """A checkpoint of a run that was stopped within an epoch: it generates the same texts and scores, and goes on to the same weights."""
    found = json.loads(json.dumps(parts.from_the_stored_run(place)))
    assert_close(found, recorded("stored"), rel=1e-5)
