"""Transcripts: a scenario as text, each command followed by what it leaves, in the manner of etcd raft's testdata.

    # a comment
    append 1 acks=all n=2
    ----
    what the command printed

    the next command

A file is blocks with blank lines between them; comments and blank lines stay as they are. ``pytest
--rewrite-transcripts`` writes what the commands print now into the files: read the diff before you commit it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_RULE = "----"
_NOTHING = "nothing"


class Command(NamedTuple):
    """``name word ... option=value ...``"""

    name: str
    words: tuple[str, ...]
    options: dict[str, str]

    @staticmethod
    def parse(line: str) -> Command:
        name, *rest = line.split()
        words = tuple(word for word in rest if "=" not in word)
        return Command(name, words, dict(word.split("=", 1) for word in rest if "=" in word))

    def number(self, option: str, default: int) -> int:
        """The number that ``option`` gives."""
        return int(self.options.get(option, default))


Run = Callable[[Command], list[str]]
"""Carries out one command and returns the lines that it prints."""


def replayed(text: str, run: Run) -> str:
    """The transcript ``text`` with what its commands print now."""
    out: list[str] = []
    printed = False
    for line in text.splitlines():
        if not line.strip():
            printed = False
            out.append("")
        elif line == _RULE or printed:
            printed = True
        elif line.startswith("#"):
            out.append(line)
        else:
            out += [line, _RULE, *(run(Command.parse(line)) or [_NOTHING])]
    return "\n".join(out).rstrip("\n") + "\n"


def check(path: Path, run: Run, *, rewrite: bool) -> None:
    """Fail if the commands of the file at ``path`` print anything else than it says; with ``rewrite``, write it."""
    text = path.read_text()
    now = replayed(text, run)
    if rewrite and now != text:
        path.write_text(now)
    else:
        assert now == text, f"{path.name} tells another story; see tests/lab/transcripts.py on how to rewrite it"
