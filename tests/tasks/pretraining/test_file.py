"""The mixture file: what it says, and one line with file and key for what is wrong in it."""

import copy
import re

import pytest
import torch
import yaml

from tests.tasks.pretraining import material
from tests.test_run_scripts import ROOT
from unival.data.bounded import SharesByEpoch
from unival.errors import UserError
from unival.tasks.pretraining.file import at, check_files, read_mixture
from unival.tasks.pretraining.optimizer import KeptOptimizer
from unival.tasks.pretraining.plan import planned_shares, rows_per_epoch, trained_specs
from unival.tasks.pretraining.shares import Balancing, shares
from unival.tasks.pretraining.values import Place
from unival.tasks.pretraining.weights import ScheduledWeights
from unival.tasks.restore import Start


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that mixtures name; their content does not matter."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("one.jsonl", "two.jsonl", "answers.txt"):
        (folder / name).write_text("{}\n")
    return folder


STREAMS = {
    "one": {"table": "one.jsonl", "preset": "unival_caption", "weight": 3, "cap": 100, "valid": "two.jsonl"},
    "two": {"table": ["one.jsonl", "two.jsonl"], "builder": "caption_and_matching", "medium": "video", "metrics": []},
    "three": {"table": "two.jsonl", "instruction": "[TEXT:a] -> [TEXT:b]", "loss_weight": {4: 1.0, 0: 0.0}, "closed_set": "answers.txt"},
}
STAGES = {
    "first": {"epochs": 15, "schedule_epochs": 50, "updates_per_epoch": 20, "streams": ["three", "one"], "options": {"lr": 2e-4}},
    "second": {"add": {"two": {"weight": 2}}, "balancing": "equal", "transition": 10, "keep_optimizer": True},
    "third": {"streams": {"one": {"loss_weight": 0.5, "weight": 0}, "two": None}, "balancing": "weights"},
}
MIXTURE = {"streams": STREAMS, "balancing": {"temperature": 2}, "options": {"lr": 1e-3, "batch_size": 2}, "stages": STAGES}
ROWS = {"one": 400, "two": 300, "three": 25}


def read(folder, **changes):
    """The mixture with other values: ``stages__first__epochs=3``; ``...`` removes a key."""
    content = copy.deepcopy(MIXTURE)
    for key, value in changes.items():
        *path, last = key.split("__")
        where = content
        for name in path:
            where = where[name]
        if value is ...:
            del where[last]
        else:
            where[last] = value
    (folder / "mixture.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_mixture(folder / "mixture.yaml")


def test_stages_have_their_streams_in_the_order_of_the_file(folder):
    mixture = read(folder)
    first, second, third = mixture.stages
    names = [[stream.name for stream in stage.streams] for stage in mixture.stages]
    assert names == [["one", "three"], ["one", "two", "three"], ["one", "two"]]
    assert (first.epochs, first.schedule_epochs, first.updates_per_epoch, first.balancing) == (15, 50, 20, Balancing("temperature", 2.0))
    assert first.options == {"lr": 2e-4, "batch_size": 2} and second.options["lr"] == 1e-3
    assert second.balancing == Balancing("equal") and second.keep_optimizer and second.transition == 10
    assert mixture.streams["three"].loss_weight == ((0, 0.0), (4, 1.0)) and third.streams[0].loss_weight == ((0, 0.5),)
    assert mixture.streams["two"].table == (folder / "one.jsonl", folder / "two.jsonl")
    assert [stream.name for stream in mixture.until(third)] == ["one", "two", "three"] and mixture.until(third)[0].weight == ((0, 0.0),)
    assert mixture.stage("second") is second
    only = read(folder, stages=..., streams__one__weight=1)
    assert only.stage(None).name == "all" and len(only.stage(None).streams) == 3


def test_shares_by_hand():
    rows, weights = [900, 100], [1, 3]
    assert shares(Balancing("proportional"), rows, weights) == [0.9, 0.1]
    assert shares(Balancing("equal"), rows, weights) == [0.5, 0.5]
    assert shares(Balancing("weights"), rows, weights) == [0.25, 0.75]
    assert shares(Balancing("temperature", 2.0), rows, weights) == pytest.approx([0.75, 0.25])
    assert shares(Balancing("temperature", 1.0), rows, weights) == pytest.approx([0.9, 0.1])


def test_what_a_stage_reads(folder):
    mixture = read(folder)
    first, second, third = mixture.stages
    assert planned(mixture, first) == pytest.approx([2 / 3, 1 / 3]), "roots of 100, the cap, and 25"
    assert rows_per_epoch(first, ROWS, 8) == 160 and rows_per_epoch(second, ROWS, 8) == 100 + 300 + 25
    moving = planned(mixture, second)
    assert moving(0) == pytest.approx([2 / 3, 0, 1 / 3]) and moving(10) == moving(99) == pytest.approx([1 / 3] * 3)
    assert moving(5) == pytest.approx([1 / 2, 1 / 6, 1 / 3])
    assert [spec.name for spec in trained_specs(mixture, third)] == ["two"], "a weight of 0 reads nothing"
    fading = read(folder, stages__third__transition=4)
    specs = trained_specs(fading, fading.stages[2])
    assert [spec.name for spec in specs] == ["one", "two", "three"] and specs[2].loss_weight == ((0, 1.0),)
    assert planned(fading, fading.stages[2])(4) == [0, 1, 0]
    assert rows_per_epoch(third, {"two": 300}, 8) == 300, "nor counts for the length of an epoch"


def planned(mixture, stage, epoch=1):
    """The shares in an epoch of a stage, or the function of the updates that gives them."""
    specs = trained_specs(mixture, stage)
    shares = planned_shares(mixture, stage, {spec.name: ROWS[spec.name] for spec in specs}, ScheduledWeights(specs))
    return shares.shares(shares.decide(epoch)) if isinstance(shares, SharesByEpoch) else shares


def test_weights_change_at_planned_epochs(folder):
    """Linear between the epochs that the file names; a stream may come later; a transition goes to the shares of each epoch."""
    weights = {"one": {"weight": {0: 3, 2: 1}}, "two": {"weight": {1: 0, 3: 2}}, "three": {}}
    first = read(folder, stages__first__streams=weights, stages__first__balancing="weights").stages[0]
    mixture = read(folder, stages__first__streams=weights, stages__first__balancing="weights")
    found = [planned(mixture, first, epoch) for epoch in range(1, 6)]
    assert found[0] == pytest.approx([3 / 4, 0, 1 / 4]) and found[1] == pytest.approx([2 / 3, 0, 1 / 3])
    assert found[2] == pytest.approx([1 / 3, 1 / 3, 1 / 3]) and found[3] == found[4] == pytest.approx([1 / 4, 2 / 4, 1 / 4])
    later = read(folder, stages__second={"streams": {**weights, "one": {"weight": {0: 0, 1: 4}}}, "balancing": "weights", "transition": 8})
    fading = [planned(later, later.stages[1], epoch) for epoch in (1, 2)]
    assert fading[0](4) == pytest.approx([1 / 3, 0, 1 / 6 + 1 / 2]) and fading[1](8) == pytest.approx([4 / 5, 0, 1 / 5])
    gone = read(folder, stages__first__streams=weights, stages__first__balancing="weights", stages__second__balancing="proportional")
    assert planned(gone, gone.stages[1])(0) == pytest.approx([1 / 4, 2 / 4, 1 / 4]), "from those of the last epoch"


def test_loss_weights_are_linear_between_their_epochs():
    points = ((0, 0.0), (4, 1.0), (6, 0.5))
    assert [at(points, epoch) for epoch in range(8)] == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.5]
    assert at(((3, 2.0),), 0) == at(((3, 2.0),), 9) == 2.0


WRONG = [
    ({"streams__one__wieght": 2}, "streams.one.wieght: no such key; did you mean 'weight'? There are table, columns"),
    ({"balance": "equal"}, "balance: no such key; did you mean 'balancing'?"),
    ({"stages__first__epoch": 1}, "stages.first.epoch: no such key; did you mean 'epochs'?"),
    ({"stages__first__streams": ["won"]}, "stages.first.streams: no stream 'won'; did you mean 'two'? There are one, two, three"),
    ({"stages__second__add": {"two": {"table": "x"}}}, "stages.second.add.two.table: no such key; there are weight, cap, loss_weight"),
    ({"stages__first__add": ["two"], "stages__first__streams": ...}, "stages.first.add: the first stage follows none"),
    ({"stages__second__streams": ["two"]}, "stages.second.add: give streams or add, not both"),
    ({"stages__first__streams": []}, "stages.first.streams: name at least one stream"),
    ({"stages__third__streams": {"two": {"weight": 0}}}, "stages.third: the weights of its streams (two) are all 0"),
    (
        {"stages__third__streams": {"two": {"weight": {0: 1, 2: 0}}, "one": {"weight": {2: 0}}}},
        "stages.third: the weights of its streams (one, two) are all 0 in epoch 2",
    ),
    (
        {"stages__second__epochs": 2, "stages__second__updates_per_epoch": 4},
        "stages.second.transition: the stage has 8 updates, got 10",
    ),
    ({"streams__one__weight": {"x": 1}}, "streams.one.weight.x: expected the number of a planned epoch"),
    ({"streams": {}}, "streams: a mixture needs at least one stream"),
    ({"streams__one__table": ...}, "streams.one: give table, the file with its rows"),
    ({"streams__one__preset": ...}, "streams.one: says nothing of what is made of a row: give one of preset, instruction, builder"),
    ({"streams__one__builder": "caption"}, "streams.one: has preset and builder of what is made of a row"),
    ({"streams__one__preset": ..., "streams__one__builder": "grouped"}, "streams.one.builder: grouped brings no instruction: give preset"),
    ({"streams__one__builder": "grouped", "streams__one__medium": "video"}, "streams.one.medium: is for a stream with a builder that"),
    ({"streams__one__medium": "video"}, "streams.one.medium: is for a stream with a builder"),
    ({"streams__one__weight": -1}, "streams.one.weight: expected a number, at least 0, got '-1'"),
    ({"streams__one__cap": 0}, "streams.one.cap: expected a whole number, at least 1, got '0'"),
    ({"streams__three__loss_weight": {}}, "streams.three.loss_weight: expected a number, or epochs with numbers"),
    ({"streams__three__loss_weight": {"x": 1}}, "streams.three.loss_weight.x: expected the number of a planned epoch"),
    ({"balancing": "equals"}, "balancing: no 'equals'; did you mean 'equal'? There are proportional, equal, weights, {temperature: 2}"),
    ({"balancing": {"temperature": 0}}, "balancing: expected {temperature: a number above 0}"),
    ({"stages__first__epochs": True}, "stages.first.epochs: expected a whole number, at least 1, got 'True'"),
    ({"stages__first__epochs": ...}, "stages.first.schedule_epochs: give epochs, too"),
    ({"stages__second__keep_optimizer": "yes"}, "stages.second.keep_optimizer: expected true or false"),
    ({"stages__third__balancing": "equal"}, "streams.one.weight: has no effect without balancing: weights"),
    ({"stages__second__add": ["one"], "stages__third__streams": ["one"]}, "streams.two: no stage has this stream"),
    ({"stages__a/b": {}}, "stages.a/b: a name has letters, digits, - and _"),
    ({"stages": ["first"]}, "stages: expected keys with values"),
]


@pytest.mark.parametrize("changes, message", WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_mistake_is_one_line_with_file_and_key(folder, changes, message):
    with pytest.raises(UserError) as found:
        read(folder, **changes)
    said = str(found.value)
    assert said.startswith(f"{folder / 'mixture.yaml'}: ") and message in said and "\n" not in said


def test_files_are_asked_for_stage_by_stage(folder):
    mixture = read(folder, streams__two__table=["one.jsonl", "absent.jsonl"])
    check_files(mixture.stages[:1])
    with pytest.raises(UserError, match=r"mixture.yaml: streams.two.table: .*absent.jsonl: no such file"):
        check_files(mixture.stages[:2])


def test_stages_are_named(folder):
    mixture = read(folder)
    for name, message in {None: "give --stage, one of first, second, third", "frist": "--stage frist: no such stage.*mean 'first'"}.items():
        with pytest.raises(UserError, match=message):
            mixture.stage(name)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "a: 1\na: 2", "a: ${nothing}"])
def test_what_is_no_yaml_is_one_line(folder, text):
    (folder / "other.yaml").write_text(text)
    with pytest.raises(UserError) as found:
        read_mixture(folder / "other.yaml")
    assert re.match(rf"{folder / 'other.yaml'}: ", str(found.value)) and "\n" not in str(found.value)
    with pytest.raises(UserError, match="no such mixture file"):
        read_mixture(folder / "absent.yaml")


def test_the_material_is_a_mixture(folder):
    material.write_tables(folder)
    assert len(read_mixture(material.write_mixture(folder, material.CURRICULUM, "material.yaml")).stages) == 2


def test_an_unset_variable_of_the_environment_is_named(monkeypatch):
    monkeypatch.delenv("TABLES", raising=False)
    with pytest.raises(UserError) as found:
        read_mixture(ROOT / "run_scripts" / "pretrain" / "unival.yaml")
    assert str(found.value).endswith(r"unival.yaml: streams.captions.table[0]: the environment variable TABLES is not set")


def test_the_file_in_the_readme(folder):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    (folder / "readme.yaml").write_text(text)
    first, second = read_mixture(folder / "readme.yaml").stages
    assert (first.name, first.rows_per_update, second.keep_optimizer, second.transition) == ("images", 256, True, 500)
    assert [stream.name for stream in second.streams] == ["captions", "questions", "clips"]


class Grown(torch.nn.Module):
    """A model, and one with a new part before the others."""

    def __init__(self, is_new):
        super().__init__()
        if is_new:
            self.media = torch.nn.Linear(4, 3)
        self.embed, self.out = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)

    def forward(self, x):
        return self.out(self.embed(self.media(x) if hasattr(self, "media") else x))


def test_an_optimizer_is_kept_for_a_model_with_new_parts(folder):
    before, after = Grown(is_new=False), Grown(is_new=True)
    adam = torch.optim.Adam(before.parameters())
    before(torch.ones(1, 3)).sum().backward()
    adam.step()
    start = Start(folder / "a.pt", {"model": before.state_dict()})
    kept = KeptOptimizer(adam.state_dict(), start, Place(folder / "mixture.yaml"))
    assert kept.fitted(before) is kept
    other = torch.optim.Adam(after.parameters())
    other.load_state_dict(kept.fitted(after).state)
    known = {name: other.state.get(parameter, {}) for name, parameter in after.named_parameters()}
    assert not known["media.weight"] and not known["media.bias"]
    for name, parameter in before.named_parameters():
        assert torch.equal(known[name]["exp_avg"], adam.state[parameter]["exp_avg"])
    after.out.weight.requires_grad = False
    with pytest.raises(UserError, match="mixture.yaml: the optimizer of .*a.pt trained other parameters than this stage does"):
        kept.fitted(after)
