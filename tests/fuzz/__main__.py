"""Fuzzes one target, guided by coverage, and prints its figures.

Needs atheris (``pip install atheris``), which has wheels for Linux only. Exit code 0 if
nothing was found; what was found is shown, and kept in ``--keep`` to be repeated.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_INPUT_BYTES_MAX = 4096
_SECONDS_MAX = 5
_ODD = [b"null", b"true", b"[]", b"{}", b"-1", b"1e308", b"1e999", b"9" * 40, b"\\ud800", b"\\u001b[2J"]
_ODD += [b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[::1]", b"@", b"xn--", b"#!NGINXNMS!#", b"#!NGINXNME!#"]
_MEMORY_MAX_MIB = 1024
_DONE = re.compile(r"^Done (\d+)(?: runs)? in ", re.MULTILINE)
_WORD = re.compile(rb'[A-Za-z_]{3,24}|"[^"\\]{1,24}"')
_INSIDE = "FUZZ_TARGET_INSIDE"


def main() -> int:
    """Run the fuzzer in a process of its own: it ends with that process."""
    arguments = _arguments()
    if os.environ.get(_INSIDE):
        _fuzz(arguments.name, arguments.fuzzer)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        # Not imported here: in the other process, what is imported is instrumented.
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            arguments.name,
            "--",
            f"-atheris_runs={arguments.runs}",
            f"-seed={arguments.seed}",
            f"-max_len={_INPUT_BYTES_MAX}",
            f"-timeout={_SECONDS_MAX}",
            f"-rss_limit_mb={_MEMORY_MAX_MIB}",
            f"-artifact_prefix={arguments.keep}/",
            f"-dict={corpus.parent / 'words'}",
            str(corpus),
        ]
        began = time.perf_counter()
        fuzzer = subprocess.run(
            command, env=os.environ | {_INSIDE: "1"}, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        seconds = time.perf_counter() - began
    done = _DONE.search(fuzzer.stderr)
    runs = int(done[1]) if done else 0
    if fuzzer.returncode or runs < arguments.runs:
        print(fuzzer.stderr[-4000:])  # noqa: T201
        print(f"{arguments.name}: FOUND something, or did not run to the end (exit code {fuzzer.returncode})")  # noqa: T201
        return 1
    print(f"{arguments.name}: runs={runs}  seconds={seconds:.0f}  per_s={runs / seconds:.0f}  found=0")  # noqa: T201
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="the target; see tests/fuzz/targets.py")
    parser.add_argument("--runs", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--keep", default=".", help="folder for what was found; default: this one")
    parser.add_argument("fuzzer", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def _fuzz(name: str, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["bitrix_pull"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    corpus = Path(options[-1])
    examples = target.seeds()
    for number, content in enumerate(examples):
        (corpus / f"seed{number}").write_bytes(content)
    words = {*_WORD.findall(b" ".join(examples)), *_ODD}
    entries = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words))
    (corpus.parent / "words").write_text("".join(f'"{entry}"\n' for entry in entries))
    atheris.Setup([name, *options], lambda content: target.run(content) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
