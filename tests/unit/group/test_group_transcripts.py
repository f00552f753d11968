"""A classic group's rules, told as transcripts: tests/lab/transcripts.py has the form, stage.py the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import transcripts
from tests.unit.group.stage import Stage

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_rules_tell_this_story(path: Path, rewrite_transcripts: bool) -> None:
    transcripts.check(path, Stage().run, rewrite=rewrite_transcripts)


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 6
