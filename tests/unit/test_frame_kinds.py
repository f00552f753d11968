"""A frame's kind is one number, whichever module it belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from raykafka.link.frame_kinds import FIRST_DATA_KIND

PACKAGE = Path(__file__).parents[2] / "raykafka"
_KIND = re.compile(r"^(\w+) = FrameKind\((\d+)\)$", re.MULTILINE)


def test_no_two_kinds_of_frames_share_a_number() -> None:
    named = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for name, number in _KIND.findall(path.read_text()):
            named[int(number)].append(f"{path.relative_to(PACKAGE)}: {name}")
    assert {number: names for number, names in named.items() if len(names) > 1} == {}
    link = [number for number, (name, *_) in named.items() if name.startswith("link/")]
    assert link and max(link) < FIRST_DATA_KIND <= min(set(named) - set(link))
    assert any("coordinator/messages.py: LOG_APPEND" in names for names in named.values())
