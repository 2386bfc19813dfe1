"""How recipes start: what is checked first, the processes of one or several machines, and the rows of an update."""

import sys

import pytest

from tests.test_run_scripts import COMMON, RECIPES, ROOT, bash, inputs, recorded  # noqa: F401  fixtures


def test_an_update_sees_the_published_rows_on_any_number_of_gpus(tmp_path):
    """128 rows, 16 a GPU at a time; with 3 GPUs 144."""
    script = 'source "$1"; for GPUS in 0 1 2 3 8 16; do update_freq 128 16; echo $UPDATE_FREQ; done'
    result = bash("-c", script, "bash", COMMON, cwd=tmp_path)
    assert result.stdout.split() == ["8", "8", "4", "3", "1", "1"], result.stderr


LAUNCHERS = """
unival() { echo "$@"; }
torchrun() { echo torchrun "$@"; }
srun() { echo srun "$MASTER_ADDR:$MASTER_PORT" "$@"; }
scontrol() { printf 'first\\nsecond\\n'; }
source "$1"
DATA=data VOCABULARY=(--vocab-dir vocabulary) OUT=out
need_processes
train --lr 1 && update_freq 128 16 && echo "$UPDATE_FREQ"
"""


@pytest.mark.parametrize(
    ("variables", "starts", "processes", "frequency"),
    [
        ({"GPUS": 4}, "train data --user-dir", 4, 2),
        ({"GPUS": 0}, "train data --user-dir", None, 8),
        ({"GPUS": 2, "NODES": 2, "LAUNCHER": "torchrun"}, "torchrun --nnodes 2 --node-rank 0 --nproc-per-node 2 ", 4, 2),
        (
            {"GPUS": 8, "LAUNCHER": "slurm", "SLURM_JOB_ID": 70001, "SLURM_NNODES": 2, "SLURM_JOB_NODELIST": "n[1-2]"},
            "srun first:30001 --ntasks-per-node 8 --kill-on-bad-exit=1",
            16,
            1,
        ),
    ],
)
def test_launchers(variables, starts, processes, frequency, tmp_path):
    result = bash("-c", LAUNCHERS, "bash", COMMON, cwd=tmp_path, **variables)
    started, per_update = result.stdout.splitlines()
    assert started.startswith(starts), result.stderr
    assert int(per_update) == frequency
    assert ("--cpu" in started) == (processes is None)
    assert processes is None or f"--distributed-world-size {processes} " in started
    assert ("rank.sh unival train data" in started) == ("LAUNCHER" in variables)


def test_unusable_launchers_are_one_line(tmp_path):
    for variables, message in (
        ({"GPUS": 1, "NODES": 2}, "NODES=2: several machines need LAUNCHER=torchrun or LAUNCHER=slurm\n"),
        ({"GPUS": 1, "LAUNCHER": "mpi"}, "LAUNCHER=mpi: there are fairseq, torchrun and slurm\n"),
        ({"GPUS": 1, "LAUNCHER": "slurm"}, "LAUNCHER=slurm: not inside of an allocation; start the recipe by sbatch or salloc\n"),
    ):
        result = bash("-c", LAUNCHERS, "bash", COMMON, cwd=tmp_path, **variables)
        assert (result.returncode, result.stderr) == (2, message)


def test_each_gpu_evaluates_a_part_of_the_rows(inputs, recorded, tmp_path):  # noqa: F811
    for shard in range(2):
        (tmp_path / "out" / f"shard-{shard}-of-2").mkdir(parents=True)
        (tmp_path / "out" / f"shard-{shard}-of-2" / "generate-test.txt").touch()
    script = ROOT / "run_scripts" / "video_qa_msvd" / "eval.sh"
    (_, checked), *generated, (command, scoring) = recorded(script, **{**inputs, "GPUS": 2, "SUBMISSION": "vqa"})
    assert sorted(call[call.index("--shard-id") + 1] for _, call in generated) == ["0", "1"]
    assert all(call[call.index("--num-shards") + 1] == "2" and "--cpu" not in call for _, call in generated)
    outputs = [str(tmp_path / "out" / f"shard-{shard}-of-2" / "generate-test.txt") for shard in range(2)]
    assert command == "unival" and scoring[:3] == ["score", *outputs] and checked == ["score", "--check", *scoring[3:]]
    assert scoring[-1] == f"vqa:{tmp_path / 'out' / 'submission-test.json'}"


WRONG = {"GPUS": "two", "SEED": "1.5", "WORKERS": "-1", "OMP_NUM_THREADS": "0", "NODES": "x", "NODE_RANK": "-1", "MASTER_PORT": "0"}
WRONG |= {"LAUNCHER": "mpi"}
CHECKING = ["quickstart", "sampler", "caption_coco/train", "easy_vqa/train", "vqa/eval", "merging/vanilla", "merging/example"]
CHECKING += ["pretrain/curriculum", "pretrain/stage1", "pretrain/example"]


@pytest.mark.parametrize("name", CHECKING)
def test_what_processes_read_is_checked_before_anything_is_made(name, inputs, tmp_path):  # noqa: F811
    """Nothing is left behind, not even the folder for the results."""
    script, inputs["MIXTURE"] = ROOT / "run_scripts" / f"{name}.sh", tmp_path / "model.pt"
    before = sorted(tmp_path.rglob("*"))
    for variable in WRONG if name == "vqa/eval" else ("GPUS", "SEED"):
        result = bash(script, *(["vqa"] if name == "sampler" else []), cwd=tmp_path, **{**inputs, variable: WRONG[variable]})
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith(f"{variable}={WRONG[variable]}: {'there are' if variable == 'LAUNCHER' else 'must be a whole'} ")
    assert sorted(tmp_path.rglob("*")) == before


def test_scores_are_checked_before_anything_is_generated(inputs, tmp_path):  # noqa: F811
    (tmp_path / "data" / "valid.tsv").write_text("0\timage\twhat?\tred\t\t/9j/\n")
    given = {**inputs, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": ROOT, "METRICS": "vqa_scores"}
    result = bash(ROOT / "run_scripts" / "vqa" / "eval.sh", cwd=tmp_path, **given)
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "'vqa_scores', did you mean 'vqa_score'?" in result.stderr and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(inputs, tmp_path):  # noqa: F811
    result = bash(RECIPES[0], cwd=tmp_path, **{**inputs, "OUT": tmp_path / "model.pt" / "out"})
    assert result.stderr == f"OUT={tmp_path / 'model.pt' / 'out'}: cannot make this folder\n" and result.returncode == 2
