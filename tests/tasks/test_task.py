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


def test_image_size_comes_from_the_checkpoint_unless_given(vocab, caplog):
    saved = config(patch_image_size=96)
    open_task, fixed_task = task(vocab), task(vocab, patch_image_size=128)
    assert open_task.media.patch_image_size == 384
    open_task.adopt(saved)
    assert open_task.media.patch_image_size == 96
    fixed_task.adopt(saved)
    assert fixed_task.media.patch_image_size == 128
    assert "128" in caplog.text and "96" in caplog.text
    with pytest.raises(UserError, match="imagenet-mean-and-std"):
        task(vocab, imagenet_mean_and_std=True).adopt(saved)


def test_the_instruction_comes_from_the_checkpoint_unless_given(vocab, caplog):
    trained = "[IMAGE:image] say what -> [TEXT:caption]"
    plain = task(vocab)
    plain.adopt(config(instruction=trained))
    assert plain.instruction_text == trained
    own = task(vocab, instruction="[TEXT:q] -> [TEXT:a]")
    own.adopt(config(instruction=trained))
    assert own.instruction_text == "[TEXT:q] -> [TEXT:a]"
    assert f"--instruction '[TEXT:q] -> [TEXT:a]', trained with {trained!r}" in caplog.text
    with pytest.raises(UserError, match="--instruction"):
        task(vocab, UnivalTask).build_dataset(RowTable([{"q": "a"}]))


def test_the_instruction_of_a_checkpoint_is_known_however_training_got_it(vocab, caplog):
    """From the command line, from the task, from the checkpoint that it started from, or from a published task's name."""
    by_task = config()
    by_task._name = "unival_caption"
    asked = task(vocab, UnivalTask)
    asked.adopt(by_task)
    assert asked.instruction_text == CaptionTask.preset.instruction
    trained = task(vocab, UnivalTask)  # started from a checkpoint, without an instruction of its own
    trained.adopt(config(instruction="[AUDIO:a] what? -> [TEXT:b]"), training=True)
    for cls in (UnivalTask, CaptionTask):
        later = task(vocab, cls)
        later.load_state_dict(trained.state_dict())
        later.adopt(trained.cfg)
        assert later.instruction_text == "[AUDIO:a] what? -> [TEXT:b]"
    for name, source in (("video_caption", "[VIDEO:video]"), ("audio_caption", "[AUDIO:audio]"), ("caption", "[IMAGE:image]")):
        published = task(vocab)
        published.adopt(OmegaConf.create({"_name": name, "code_dict_size": 8192, "num_bins": 1000, "num_frames": 16}))
        medium = "image" if name == "caption" else "video"
        expected = f"{source} what does the {medium} describe? -> [TEXT:caption,no_punctuation,max_length=20]"
        assert published.instruction_text == expected
        assert (published.media.num_frames, published.media.frame_fit, published.media.image_fit) == (16, "published", "published")
    fine_tuned = task(vocab)  # a task of its own is not changed by what it starts from
    fine_tuned.adopt(config(instruction="[AUDIO:a] what? -> [TEXT:b]"), training=True)
    assert fine_tuned.instruction_text == CaptionTask.preset.instruction and not caplog.records


def test_checkpoints_from_before_image_fit_keep_reading_images_as_they_were_trained(vocab):
    state = task(vocab).state_dict()
    assert state["media"]["image_fit"] == "seen"
    kept = task(vocab)
    kept.load_state_dict(state)
    older = {**state, "media": {name: value for name, value in state["media"].items() if name != "image_fit"}}
    loaded, changed = task(vocab), task(vocab, image_fit="seen")
    loaded.load_state_dict(older)
    changed.load_state_dict(older)
    oldest = task(vocab)  # whose task had no state
    options = OmegaConf.to_container(oldest.cfg)
    oldest.adopt(OmegaConf.create({name: value for name, value in options.items() if name != "image_fit"}))
    found = [one.media.image_fit for one in (kept, loaded, changed, oldest)]
    assert found == ["seen", "published", "seen", "published"]


def test_another_vocabulary_is_refused(vocab, tmp_path):
    other = tiny.vocabulary(tmp_path, num_codes=3)
    with pytest.raises(UserError, match="another vocabulary"):
        task(vocab).load_state_dict(task(other).state_dict())
    task(vocab).load_state_dict(task(vocab).state_dict())


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
    for row, beams in enumerate(together):
        alone_sample = dataset.collater([dataset[row]])
        alone = own.inference_step(generator, [model], alone_sample)[0]
        assert torch.equal(beams[0]["tokens"], alone[0]["tokens"])
        assert len(beams[0]["tokens"]) == len(beams[0]["positional_scores"])
        forced = model.get_normalized_probs(  # the score of the answer's first token, given the beginning
            model(alone_sample["net_input"]["src_tokens"], None, alone_sample["net_input"]["prev_output_tokens"]),
            log_probs=True,
        )
        assert beams[0]["positional_scores"][0].item() == pytest.approx(
            forced[0, -1, beams[0]["tokens"][0]].item(), abs=1e-4
        )


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
