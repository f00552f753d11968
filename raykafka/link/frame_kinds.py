"""The kinds of frames that every link has, whatever travels on it. Format number: ``link.handshake.FORMAT``.

Data kinds are those of whoever speaks on the link: ``partition.appends``, ``partition.view``, ``coordinator.messages``,
``replica.stream_frames``. A number stands for one kind.
"""

from __future__ import annotations

from raykafka.types import FrameKind

# control kinds, handled by Link itself
PING = FrameKind(1)
PONG = FrameKind(2)
CALL = FrameKind(3)
REPLY = FrameKind(4)
TELL = FrameKind(5)
FORWARD = FrameKind(6)
FORWARDED = FrameKind(7)

FIRST_DATA_KIND = 16
