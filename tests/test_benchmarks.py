"""The benchmarks run, and compare two trees; what they measure is not looked at."""

import importlib
import json
import pathlib
import subprocess
import textwrap

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark as its own process would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_generation_is_timed(benchmark):
    generation = benchmark("generation")
    sizes = ["--arch", "unival_tiny", "--vocabulary", "40", "--image-size", "32", "--tokens", "3", "--source", "5", "--beam", "2"]
    figures, note = generation.figures(generation.parser().parse_args([*sizes, "--batch", "2"]))
    assert list(figures)[:4] == ["image, fp32", "image, bf16", "text, fp32", "text, bf16"] and "beam 2, 3 tokens, batch 2" in note
    for build in figures.values():
        parts = build()()
        assert parts["all"] == pytest.approx(parts["encoder"] + parts["decoder and search"]) and parts["encoder"] > 0


def test_training_is_timed(benchmark):
    model = benchmark("model")
    sizes = ["--arch", "unival_tiny", "--vocabulary", "40", "--image-size", "32", "--frames", "2", "--frame-size", "32"]
    sizes += ["--audio-samples", "9600", "--batch", "2", "--matmul", "8"]
    figures, note = model.figures(model.parser().parse_args(sizes))
    names = ["caption, batch 2, 32 px", "caption and matching, batch 2, 32 px", "video, batch 2, 2 x 32 px", "audio, batch 2, hop 200"]
    assert list(figures) == [f"{name}, {precision}" for name in names for precision in ("fp32", "bf16")] and "20 target tokens" in note
    for build in figures.values():
        *parts, everything, limit = build()().items()
        assert [name for name, _ in parts] == ["forward", "backward", "optimizer"] and min(seconds for _, seconds in parts) > 0
        assert everything == ("all", pytest.approx(sum(seconds for _, seconds in parts))) and limit[1] > 0


def test_the_python_api_is_timed(benchmark):
    api = benchmark("api")
    args = api.parser().parse_args(["--arch", "unival_tiny", "--vocabulary", "400", "--images", "2", "--tokens", "2", "--beam", "2"])
    with api.files(args) as more:
        args.folder = pathlib.Path(more[1])
        figures, note = api.figures(args)
        assert list(figures) == ["fp32", "bf16", "int8"] and "beam 2, 2 tokens" in note
        for build in figures.values():
            parts = build()()
            assert list(parts) == ["load", "2 images"] and min(parts.values()) > 0


def test_candidates_are_timed(benchmark):
    """Each figure checks by itself that scores over the tree are those of whole answers, and that searches have the same length."""
    candidates = benchmark("candidates")
    sizes = ["--arch", "unival_tiny", "--vocabulary", "60", "--image-size", "32", "--tokens", "3", "--batch", "2", "--answers", "50"]
    figures, note = candidates.figures(candidates.parser().parse_args([*sizes, "--share", "5"]))
    assert list(figures) == ["scores, fp32", "scores, bf16", "beam 5, fp32", "beam 5, bf16"] and "50 answers, batch 2" in note
    for build in (figures["scores, fp32"], figures["beam 5, fp32"]):
        *seconds, ratio = build()().values()
        assert min(seconds) > 0 and ratio == pytest.approx(seconds[-1] / seconds[-2] if len(seconds) == 3 else seconds[0] / seconds[1])


def test_mixed_batches_are_timed(benchmark):
    groups = benchmark("groups")
    sizes = ["--arch", "unival_tiny", "--vocabulary", "40", "--image-size", "32", "--frames", "2", "--frame-size", "32"]
    figures, note = groups.figures(groups.parser().parse_args([*sizes, "--audio-samples", "9600"]))
    (build,) = figures.values()
    alone, mixed, ratio, operations = build()().values()
    assert ratio == pytest.approx(mixed / alone) and alone > 0 and "32 px, 2 x 32 px" in note
    assert operations == pytest.approx(1, abs=1e-3), "groups of one kind are not padded to another"


def test_reading_is_timed(benchmark):
    data = benchmark("data")
    sizes = ["--rows", "5", "--videos", "0", "--large", "300"]
    with data.tables(data.parser().parse_args(sizes)) as more:
        figures, _ = data.figures(data.parser().parse_args([*sizes, *more]))
        ours, published, ratio = figures["JPEG, 640 x 480 to 384 px"]()().items()
        alone, mixed = figures["300 rows"]()(), figures["in a mixture"]()()
    assert ours[0] == "5 rows" and ours[1] > 0 and ratio[1] == pytest.approx(ours[1] / published[1])
    for parts in (alone, mixed):
        assert list(parts) == ["open", "plan", "memory of the process, MB", "memory of a worker, MB"]
        assert parts["open"] > 0 and parts["plan"] > 0 and abs(parts["memory of a worker, MB"]) < 50


def test_starting_is_timed(benchmark, monkeypatch):
    """Importing in a process of its own; the run in this one, which has imported all that it needs."""
    from tests.runs import forget_run
    from unival.cli import main

    start = benchmark("start")
    with start.table(start.parser().parse_args([])) as more:
        folder = pathlib.Path(more[1])
        figures, _ = start.figures(start.parser().parse_args(more))
        assert list(figures)[2:] == ["import unival", "unival train, 10 rows, to the first update"]
        assert figures["import unival"]()()[""] > 0
        codes = []

        def in_this_process(command, cwd, **how):
            assert cwd == folder, "another tree's package may lie in the current folder"
            codes.append(main(command[command.index("unival.cli") + 1 :]))

        monkeypatch.setattr(start.subprocess, "run", in_this_process)
        assert figures["unival train, 10 rows, to the first update"]()()[""] > 0 and codes == [0]
        forget_run()
        assert ": 1 update; nothing was saved" in (folder / "out" / "train.log").read_text()


def test_two_trees_are_measured_in_turns(benchmark, tmp_path, capsys, monkeypatch):
    """A script that notes who measures; it runs with each tree's own package."""
    harness = benchmark("harness")
    script = tmp_path / "figures.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import pathlib, unival
            from harness import arguments, main

            def figures(args):
                def measure():
                    print("no answer")
                    with open({str(tmp_path / "turns")!r}, "a") as turns:
                        turns.write(unival.NAME + "\\n")
                    return {{"": 2.0 if unival.NAME == "ours" else 4.0}}
                def build():
                    from unival import new
                    return measure
                return {{"work": lambda: measure, "other work": lambda: measure, "other, new": build}}, "the note"

            if __name__ == "__main__":
                main(__file__, arguments(""), figures)
            """
        )
    )
    (tmp_path / "harness.py").symlink_to(BENCHMARKS / "harness.py")
    for name in ("ours", "theirs"):
        (tmp_path / name / "unival").mkdir(parents=True)
        (tmp_path / name / "unival" / "__init__.py").write_text(f"NAME = {name!r}\n")
    (tmp_path / "ours" / "unival" / "new.py").touch()
    monkeypatch.setattr(harness, "THIS_TREE", tmp_path / "ours")
    argv = ["--against", str(tmp_path / "theirs"), "--rounds", "2", "--only", "other", "--json", str(tmp_path / "figures.json")]
    harness.main(str(script), harness.arguments(""), lambda args: ({}, ""), argv)
    turns = ["ours", "ours", "theirs", "theirs", "ours", "ours", "ours", "theirs", "ours"]  # warm-ups first; the new figure is ours alone
    assert (tmp_path / "turns").read_text().split() == turns
    _, figure, new, memory, *note = capsys.readouterr().out.splitlines()
    assert figure.split() == ["other", "work", "2.0000", "4.0000", "0.50", "0.50", "to", "0.50"]
    assert new.split() == ["other,", "new", "2.0000", "2.0000", "to", "2.0000"]
    assert note[0] == "the note" and note[1].startswith("other, new: not measured in the other tree (ImportError: cannot import name 'new'")
    ours, theirs, ratio = map(float, memory.removeprefix("peak of the memory, GiB").split()[:3])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["results"][0] == {"name": "other work", "ours": [2.0, 2.0], "theirs": [4.0, 4.0]}
    assert 0 < ours == pytest.approx(theirs * ratio, rel=0.5, abs=0.02)


def test_merging_is_measured(benchmark, monkeypatch, capsys):
    merging = benchmark("merging")
    monkeypatch.setattr("sys.argv", ["merging.py", "--arch", "unival_tiny", "--vocabulary", "400", "--rounds", "1", "--models", "2"])
    merging.main()
    kinds = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["linear", "merge", "copy", "ratio", "memory"]


def test_all_benchmarks_make_a_page(benchmark, tmp_path, monkeypatch, capsys):
    page = benchmark("all")
    (tmp_path / "unival").mkdir()

    def measures(command, **how):
        if command[0] == "git":
            return subprocess.CompletedProcess(command, 0, "1234567\n" if "rev-parse" in command else "")
        values = {"name": "image, fp32, all", "ours": [1.0, 3.0, 2.0], "theirs": [2.0, 4.0, 8.0]}
        alone = {"name": "new", "ours": [2000.0] * 3, "theirs": []}
        found = {"clock": "cpu", "note": f"the note of {pathlib.Path(command[1]).stem}", "results": [values, alone]}
        pathlib.Path(command[command.index("--json") + 1]).write_text(json.dumps(found))

    monkeypatch.setattr(page.subprocess, "run", measures)
    out = tmp_path / "RESULTS.md"
    options = ["--against", str(tmp_path), "--out", str(out), "--clock", "cpu"]
    page.main([*options, "--only", "generation,model"])
    text = out.read_text()
    assert "| image, fp32, all | 2 | 4 | **0.50** | 0.25 to 0.75 | 0.70 |" in text and "| new | 2000 |  |  |  |  |" in text
    assert text.index("## model.py") < text.index("## generation.py") and "1234567 against 1234567" in text
    page.main([*options, "--only", "data"])
    both = out.read_text()
    assert both.startswith(text.rstrip()) and "the note of data" in both, "the other sections stay as they are"
    page.main([*options, "--only", "data"])
    assert out.read_text().count("## data.py") == 1
    with pytest.raises(SystemExit):
        page.main([*options, "--only", "modell"])
    assert "--only modell: the benchmarks are model, generation" in capsys.readouterr().err
