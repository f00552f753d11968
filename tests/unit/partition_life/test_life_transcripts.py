"""A partition's life in its broker, told as transcripts: tests/lab/transcripts.py has the form.

Broker 1 holds the partition. Commands are the events of ``life_events``; ``at=`` is the time in seconds, ``epoch=`` and
``leader=`` make a state. Answers are to the newest opening, or to the one that ``opening=`` names.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raykafka.broker.partitions import life_events as events
from raykafka.broker.partitions.life import Life, Phase
from raykafka.cluster.image import PartitionState
from raykafka.types import NOWHERE
from tests.lab import transcripts
from tests.lab.transcripts import Command

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
BROKER = 1


class Stage:
    """Carries the commands out, and prints the effects and what the life is then."""

    def __init__(self) -> None:
        self.life = Life(BROKER, _state(1, 0))
        self.now = 0.0
        self.opening = 0

    def run(self, command: Command) -> list[str]:
        self.now = float(command.options.get("at", self.now))
        event = self._event(command)
        effects = self.life.step(event, self.now)
        for effect in effects:
            if isinstance(effect, events.Open):
                self.opening = effect.opening
        return [*map(_effect, effects), self._described()]

    def _event(self, command: Command) -> events.Event:
        words = command.words
        opening = command.number("opening", self.opening)
        seal = ["seal"] if "sealed" in words else None
        match command.name:
            case "assigned":
                self.life = Life(BROKER, _state(command.number("leader", 1), command.number("epoch", 0)))
                self.opening = 0
                return events.Assigned("busy" not in words)
            case "changed":
                return events.Changed(_state(command.number("leader", 1), command.number("epoch", 0)))
            case "free":
                return events.DirectoryFree()
            case "given":
                return events.Given(int(words[0]))
            case "opened":
                return events.Opened(opening)
            case "can't-open":
                return events.OpenFailed(opening, "no such disk")
            case "failed":
                return events.Failed(int(words[0]), "a write failed", "diverged" in words)
            case "refused":
                return events.Refused(command.number("epoch", 0), "it was led before")
            case "gone":
                return events.ActorGone(int(words[0]))
            case "move":
                return events.Move(int(words[0]))
            case "left":
                return events.Left(opening, seal)
            case "not-left":
                return events.NotLeft(opening)
            case "can't-leave":
                return events.LeaveFailed(opening)
            case "closed":
                return events.Closed(opening, seal)
            case "not-closed":
                return events.CloseTimedOut(opening)
            case "released":
                return events.Released()
            case "tick":
                return events.Tick()
        raise AssertionError(command)

    def _described(self) -> str:
        life = self.life
        where = "" if life.actor is None else f" at {life.actor}"
        to = "" if life.to is None else f", to {life.to}"
        failures = f", failed {life.failures.count} times" if life.failures.count else ""
        reason = f": {life.failures.reason}" if life.failures.reason and life.phase is not Phase.GONE else ""
        return f"{life.phase}{where}{to}{failures}{reason}"


def _state(leader: int, epoch: int) -> PartitionState:
    return PartitionState((1, 2), leader, epoch, (1, 2), epoch)


def _effect(effect: events.Effect) -> str:
    match effect:
        case events.FreeDirectory(None):
            return "> wait until the directory is free"
        case events.FreeDirectory(actor):
            return f"> wait until {actor} has let the log go"
        case events.Seek():
            return "> seek an actor"
        case events.Open(actor, opening, seal):
            return f"> open at {actor}, opening {opening}{' with the seal' if seal else ''}"
        case events.Leave(actor):
            return f"> ask {actor} to give it up"
        case events.Close(actor):
            return f"> close at {actor}"
        case events.Kill(actor):
            return f"> kill {actor}"
        case events.Place(actor):
            return f"> tell that it is {'nowhere' if actor == NOWHERE else f'at {actor}'}"
        case events.Report(state, reason):
            return f"> report that the replica of leader epoch {state.leader_epoch} failed: {reason}"
        case events.SetTimer(at_s):
            return f"> timer at {at_s:.2f}"
        case events.Ended(clean):
            return f"> gone, closed {'cleanly' if clean else 'not cleanly'}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_life_tells_this_story(path: Path, rewrite_transcripts: bool) -> None:
    transcripts.check(path, Stage().run, rewrite=rewrite_transcripts)


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 7
