"""How recipes start: the processes of one or several machines, and the rows of an update."""

import pytest

from tests.test_run_scripts import COMMON, ROOT, bash, inputs, recorded  # noqa: F401  fixtures


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
