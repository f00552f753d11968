"""What a replica leaves behind when its log is closed: the note in the seal on the log (rule 17).

The note is JSON: the seal of the rules, the epoch of the last record, and what readers need: the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from raykafka.partition.view import View
from raykafka.replica.rules.events import Seal
from raykafka.types import LogPosition


class SealNote(NamedTuple):
    """``view`` is what readers go by while the replica sleeps. Nobody cuts the log meanwhile: its truncation count is
    0."""

    seal: Seal
    last_epoch: int
    view: View

    def to_note(self) -> dict[str, Any]:
        """As plain data, for the seal."""
        view = self.view
        return {
            "seal": list(self.seal),
            "last_epoch": self.last_epoch,
            "log_start": view.log_start_offset,
            "high_watermark_position": list(view.high_watermark_position),
            "stable": [view.last_stable_offset, *view.last_stable_position],
            "segments": list(view.segments or ()),
        }

    @staticmethod
    def of_note(note: Mapping[str, Any]) -> SealNote:
        """What ``to_note`` made plain data of."""
        seal = Seal(*note["seal"])
        stable, *stable_position = note["stable"]
        view = View(
            seal.epoch,
            seal.epoch_start,
            0,
            note["log_start"],
            seal.high_watermark,
            LogPosition(*note["high_watermark_position"]),
            stable,
            LogPosition(*stable_position),
            seal.log_end,
            seal.log_end,
            tuple(note["segments"]),
        )
        return SealNote(seal, note["last_epoch"], view)

    def in_epoch(self, seal: Seal) -> SealNote:
        """The same log in the epoch of ``seal`` (``sealed.told_asleep``)."""
        if seal is self.seal:
            return self
        view = replace(self.view, leader_epoch=seal.epoch, epoch_start_offset=seal.epoch_start)
        return SealNote(seal, self.last_epoch, view)
