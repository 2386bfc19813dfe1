"""Tasks: tables by split, settings taken from a checkpoint, beginnings that are given."""

from argparse import Namespace

import pytest
import torch
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf

from tests import tiny
from unival.data.rows import RowTable
from unival.errors import UserError
from unival.models.config import UnivalConfig
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.inputs import find_table
from unival.vocab import FairseqBpe

CaptionTask = TASK_REGISTRY["unival_caption"]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def config(**options):
    start = {"save_dir": "nowhere", "restore_file": "checkpoint_last.pt", "checkpoint_suffix": ""}  # as fairseq fills in
    start.update(finetune_from_model=None, continue_once=None)
    start.update(train_subset="train", valid_subset="valid")
    return OmegaConf.structured(UnivalTaskConfig(**{"data": "nowhere", "seed": 1, **start, **options}))


def model_config(**changes):
    """Options of a small model as fairseq hands them to a task."""
    sizes = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "decoder_ffn_embed_dim": 64, "encoder_layers": 1}
    heads = {"decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    cnns = {"image_backbone": "resnet10", "video_backbone": "resnext3d14", "audio_backbone": "cnn6"}
    cfg = OmegaConf.structured(UnivalConfig(**sizes, **heads, **cnns, **changes))
    cfg._name = "unival"
    return cfg


def task(vocab, cls=CaptionTask, **options):
    return cls(config(**options), vocab)


def test_tables_of_a_folder_and_by_name(tmp_path):
    for name in ("train.jsonl", "valid.tsv", "test.jsonl", "test.tsv"):
        (tmp_path / name).write_text("x\n")
    assert find_table(str(tmp_path), "train", True).name == "train.jsonl"
    assert find_table(str(tmp_path), "valid", False).name == "valid.tsv"
    with pytest.raises(UserError, match="both test.jsonl and test.tsv"):
        find_table(str(tmp_path), "test", False)
    with pytest.raises(UserError, match=r"'dev'.*test.jsonl, test.tsv, train.jsonl, valid.tsv"):
        find_table(str(tmp_path), "dev", False)
    pair = f"{tmp_path / 'train.jsonl'},{tmp_path / 'valid.tsv'}"
    assert [find_table(pair, "any", train).name for train in (True, False)] == ["train.jsonl", "valid.tsv"]
    with pytest.raises(UserError, match="an empty name; .*TRAIN,VALID"):
        find_table(pair + ",", "valid", False)


def test_published_tsv_layout(tmp_path, vocab):
    path = tmp_path / "train.tsv"
    path.write_text("7\timg7\ta red square\tobjects\timage.jpg\n")
    table = task(vocab).open_table(path)
    assert table[0] == {"id": "7", "image": "image.jpg", "caption": "a red square"}


def test_generation_options(vocab):
    assert vars(task(vocab, eval_args='{"beam": 2}').generation_options())["beam"] == 2
    for text in ("beam 2", "[1]"):
        with pytest.raises(UserError, match="--eval-args"):
            task(vocab, eval_args=text).generation_options()


def test_tokens_are_printed_as_text(vocab):
    decoder = FairseqBpe(vocab)
    assert decoder.decode(decoder.encode(" a red square")) == "a red square"


def test_given_beginnings_are_forced_and_not_part_of_the_answer(vocab):
    own = task(vocab, UnivalTask, instruction="[TEXT:q] -> say [TEXT:q,no_loss]: [TEXT:a]")
    rows = [{"q": "a red square", "a": ""}, {"q": "blue", "a": ""}]
    dataset = own.build_dataset(RowTable(rows), with_target=False)
    model = tiny.model(vocab)
    generator = own.build_generator([model], Namespace(beam=2, max_len_b=30))
    sample = dataset.collater([dataset[0], dataset[1]])
    together = own.inference_step(generator, [model], sample)
    assert [vocab.decode(row) for row in sample["net_input"]["src_tokens"]] == [" a red square", " blue"]  # what fairseq-generate prints
    for row, beams in enumerate(together):
        alone_sample = dataset.collater([dataset[row]])
        alone = own.hypotheses(generator, [model], alone_sample)[0]
        assert torch.equal(beams[0]["tokens"], alone[0]["tokens"])
        assert len(beams[0]["tokens"]) == len(beams[0]["positional_scores"])
        forced = model.get_normalized_probs(  # the score of the answer's first token, given the beginning
            model(**alone_sample["net_input"]),
            log_probs=True,
        )
        assert beams[0]["positional_scores"][0].item() == pytest.approx(
            forced[0, -1, beams[0]["tokens"][0]].item(), abs=1e-4
        )


def test_texts_are_cut_to_the_positions_of_the_model(vocab):
    """In training, and of several loaded models to the fewest; the other side keeps its room."""
    table = RowTable([{"q": "a red square " * 10, "a": "red " * 20}])
    own = task(vocab, UnivalTask, instruction="[TEXT:q] -> [TEXT:a]")
    whole = own.build_dataset(table)[0][0]
    model = own.build_model(model_config(max_source_positions=16, max_target_positions=9)).eval()
    data = own.build_dataset(table)
    (example,) = data[0]
    assert (whole.truncated, example.truncated) == (0, 2)
    assert example.source.tolist() == [*whole.source[:17], vocab.eos] and example.prev_output.tolist() == whole.prev_output[:10].tolist()
    assert bool(model(**data.collater([[example]])["net_input"])[0].isfinite().all())
    loads = task(vocab, UnivalTask, instruction="[TEXT:q] -> [TEXT:a]")
    for source in (16, 12, 2000):
        loads.build_model(model_config(max_source_positions=source), from_checkpoint=True)
    (example,) = loads.build_dataset(table)[0]
    assert len(example.source) == 14 and torch.equal(example.target, whole.target)


def test_a_checkpoint_from_before_an_option_existed_takes_its_default(vocab):
    """Its options lack what came later; it is not taken for a published one, and takes images."""
    built = task(vocab).build_model(model_config(), from_checkpoint=False)
    options = {name: value for name, value in built.cfg.items() if not name.startswith(("audio", "video", "modal"))}
    old = OmegaConf.create({**options, "_name": "unival_tiny"})
    model = task(vocab, instruction="[TEXT:q] -> [TEXT:a]").build_model(old, from_checkpoint=True)
    assert list(model.encoder.media) == ["image"]
    model.load_state_dict(built.state_dict())


def test_the_model_takes_the_media_of_the_instruction(vocab):
    cfg = model_config()
    sounds = task(vocab, instruction="[AUDIO:a] what? -> [TEXT:b]", audio_sample_rate=32000)
    model = sounds.build_model(cfg, from_checkpoint=False)
    assert list(model.encoder.media) == ["audio"] and model.encoder.media["audio"].backbone.sample_rate == 32000
    assert (cfg.modalities, cfg.audio_sample_rate) == ("audio", 32000)  # goes into checkpoints
    both = task(vocab).build_model(model_config(modalities="image,video"), from_checkpoint=False)
    assert list(both.encoder.media) == ["image", "video"]


# --- builders -----------------------------------------------------------------------------------------------------------------


def test_a_builder_is_for_the_rows_to_train_on(vocab):
    rows = RowTable([{"image": "x", "caption": ["red", "blue"]}, {"image": "x", "caption": ["green", "left"]}])
    built = task(vocab, builder="grouped")
    assert [record["caption"] for _, record in built.build_dataset(rows, train=True).made(0, None)] == ["red", "blue"]
    assert len(built.build_dataset(rows).made(0, None)) == len(task(vocab).build_dataset(rows, train=True).made(0, None)) == 1


def test_the_task_is_the_first_of_a_builders(vocab):
    """The others are the builder's own, with the medium of the task's instruction."""
    rows = RowTable([{"video": "x", "caption": "red"}, {"video": "x", "caption": "blue"}])
    own = "[VIDEO:video] what is it? -> [TEXT:caption]"
    data = task(vocab, builder="caption_and_matching", instruction=own).build_dataset(rows, train=True)
    assert {name: str(each[0]) for name, each in data.instructions.items()} == {
        "caption": own,
        "caption_cc12m": '[VIDEO:video] what does the video describe? -> [TEXT:caption,clean="caption",loss_from=2]',
        "matching": '[VIDEO:video] does the video describe " [TEXT:caption,clean="caption"] "? -> [TEXT:match]',
    }
    with pytest.raises(UserError, match=r"unknown builder 'captions', did you mean 'caption'\? There are plain, grouped"):
        task(vocab, builder="captions").build_dataset(rows, train=True)
    text = task(vocab, builder="caption", instruction="[TEXT:caption] -> [TEXT:caption]")
    with pytest.raises(UserError, match=r"--builder caption: its instructions are about a medium, and '\[TEXT:caption\] -> .*' has none"):
        text.build_dataset(rows, train=True)
