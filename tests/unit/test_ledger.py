"""The controller's state can be changed in a turn, and in no other way."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import raykafka.controller.decisions
from raykafka.cluster.changes import Changes
from raykafka.cluster.image import BrokerInfo, ClusterImage, ImageDelta
from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.controller.ledger.tenure import Tenure
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition
from raykafka.zookeeper.client import Conflict
from raykafka.zookeeper.controller_store import Metadata, TopicRecord
from raykafka.zookeeper.znodes import Registration, StateNode, TopicNode

NODE = TopicNode(uuid.uuid4(), {0: (1,)}, {}, {})
STATE = StateNode(1, 0, (1,), (7,), 3).stored_at(0)
RECORD = TopicRecord("t", NODE, 0, {0: STATE})
T0 = TopicPartition("t", 0)
BROKER = Registration(BrokerInfo(1, 7, (), "127.0.0.1", 1, "directory", "boot", True), "incarnation", 7, 7)
METADATA = Metadata({"t": RECORD}, {}, {}, Changes())


class Store:
    """Stands in for ZooKeeper: takes what it is told, or raises ``error``."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.error: Exception | None = None

    def write_states(self, changes: dict[TopicPartition, StateNode], dead: Any) -> dict[TopicPartition, StateNode]:
        if self.error is not None:
            raise self.error
        self.written += [str(tp) for tp in changes]
        return {tp: state.stored_at(state.version + 1) for tp, state in changes.items()}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            self.written.append(name)

        return write


class Brokers:
    """Those that are told: what, and how far the store was then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.told: list[tuple[ImageDelta, int, list[str]]] = []

    def publish(self, delta: ImageDelta, sequence: int) -> None:
        self.told.append((delta, sequence, list(self._store.written)))

    async def acknowledged(self, sequence: int, timeout_s: float) -> bool:
        return True


class Parts:
    def __init__(self) -> None:
        self.store = Store()
        self.brokers = Brokers(self.store)
        self.tenure = Tenure()
        state = State(ClusterImage("cluster", 1, 3))
        self.ledger = Ledger(state, self.store, self.tenure, self.brokers)  # type: ignore[arg-type]

    async def taken_over(self) -> Ledger:
        async with self.ledger.turn() as turn:
            turn.take_over({1: BROKER}, METADATA)
        return self.ledger


def run(scenario: Callable[[Parts], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(30):
            await scenario(Parts())

    asyncio.run(play())


WRITES: dict[str, tuple[Any, ...]] = {
    "take_over": ({1: BROKER}, METADATA),
    "take_registrations": ({1: BROKER},),
    "note_leaving": (1,),
    "add_first_states": ("t", {0: STATE}),
    "write_states": ({T0: STATE},),
    "write_isrs": ({T0: STATE},),
    "write_assignment": ("t", NODE, {0: STATE}),
    "create_topic": ("t", NODE, {}, {0: STATE}),
    "grow_topic": ("t", NODE, {0: STATE}),
    "delete_topics": (["t"],),
    "finish_deleting": ("t",),
    "write_topic_config": ("t", {}),
    "write_broker_config": ("", {}),
}


def test_a_turn_that_has_ended_changes_nothing_any_more() -> None:
    public = {name for name, _ in inspect.getmembers(Turn, inspect.isfunction) if not name.startswith("_")}
    assert public == set(WRITES), "every method of a turn is tried"

    async def scenario(parts: Parts) -> None:
        ledger = await parts.taken_over()
        async with ledger.turn() as turn:
            pass
        before = ledger.state
        for name, arguments in WRITES.items():
            with pytest.raises(RuntimeError, match="this turn has ended"):
                result = getattr(turn, name)(*arguments)
                if inspect.isawaitable(result):
                    await result
        assert ledger.state is before and parts.store.written == [] and parts.brokers.told == []

    run(scenario)


def test_outside_of_a_turn_the_state_can_only_be_read() -> None:
    assert {name for name in vars(Ledger) if not name.startswith("_")} == {"state", "waiting", "turn", "acknowledged"}

    async def scenario(parts: Parts) -> None:
        ledger = await parts.taken_over()
        state: Any = ledger.state
        with pytest.raises(AttributeError):
            ledger.state = state  # type: ignore[misc]
        for field in dataclasses.fields(state):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(state, field.name, None)
        for name in ("records", "deleting", "registrations", "leaving_epochs", "static_config"):
            with pytest.raises(TypeError):
                getattr(state, name)["t"] = None
        with pytest.raises(TypeError):
            state.records["t"].states[0] = STATE
        with pytest.raises(TypeError):
            state.records["t"].config["retention.ms"] = "1"
        with pytest.raises(dataclasses.FrozenInstanceError):
            state.records["t"].version = 7

    run(scenario)


def test_what_zookeeper_has_taken_becomes_the_state_and_then_the_brokers_are_told() -> None:
    async def scenario(parts: Parts) -> None:
        ledger = await parts.taken_over()
        before = ledger.state
        async with ledger.turn() as turn:
            await turn.write_states({T0: dataclasses.replace(STATE, leader=-1, leader_epoch=1)}, [BROKER])
            assert turn.state.records["t"].states[0].version == 1
        removed, changed = parts.brokers.told
        assert (removed[0].removed_brokers, removed[1], removed[2]) == ((1,), 1, ["t-0"])
        assert (changed[0].partitions[T0].leader, changed[1], changed[2]) == (-1, 2, ["t-0"])
        assert ledger.state.sequence == 2 and ledger.state.image.partition(T0) == changed[0].partitions[T0]
        assert before.records["t"].states[0] == STATE, "who read the state before goes on with what it was"

    run(scenario)


def test_a_write_that_zookeeper_refuses_ends_the_controller_and_changes_nothing() -> None:
    async def scenario(parts: Parts) -> None:
        ledger = await parts.taken_over()
        before, parts.store.error = ledger.state, Conflict("Write of /t: BadVersionError")
        async with ledger.turn() as turn:
            with pytest.raises(KafkaError, match="this controller was deposed"):
                await turn.write_states({T0: STATE})
        assert ledger.state is before and parts.brokers.told == []
        assert parts.tenure.resigned.result() == "Write of /t: BadVersionError"

    run(scenario)


def test_decisions_know_the_ledger_and_never_the_store_or_the_controller() -> None:
    allowed = ("ledger", "rules", "decisions")
    modules = list(Path(raykafka.controller.decisions.__path__[0]).glob("*.py"))
    assert len(modules) > 5
    for path in modules:
        imported = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        for name in (node.module or "" for node in imported):
            if name.startswith("raykafka.zookeeper"):
                assert name == "raykafka.zookeeper.znodes", f"{path.name} imports {name}"
            if name.startswith("raykafka.controller."):
                assert name.split(".")[2] in allowed, f"{path.name} imports {name}"
