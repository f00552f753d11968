"""A partition group that a transcript moves by commands, and what each command leaves, as text.

A command prints what the rules ask for, ``<broker>> <effect>``, then the state of every broker that it changed. Nothing
happens by itself: no frame, no decision and no time passes but by a command. Broker 1 leads first, in epoch 0.

    brokers N [min.insync=N] [isr=1,2] [unclean]   begin
    append B acks=all|1|0 [n=N]     a client's produce of N records, one batch each
    connect B F                     hello and answer
    hello B F, answer B F           the follower takes its leader's Hello; the leader takes the Answer
    replicate B F                   send and ack
    send B F                        the leader sends what the follower lacks, or its high watermark
    ack B F                         the leader takes the follower's acknowledgements
    lose B F [refused]              the stream between them ends
    propose                         the controller takes the oldest proposal for an ISR
    elect [unclean]                 the controller decides with what it knows of who lives
    move-leader B                   the controller has a member of the ISR lead though the leader lives
    tell [B ...]                    the brokers hear of the controller's state
    kill B, start B                 a broker with its actors
    kill-actor B                    the actor that has the replica open
    leave B                         the replica is asked to leave for another actor
    open B                          an actor opens the log
    power-off B lost=N              the host goes, with the last N records that were not flushed
    tick B ms=N                     time passes; the replica's timer is due
    state                           print all

Records are ``<epoch>/<number of the append>``, epochs ``<epoch>@<start offset>``, ``hw`` the high watermark, ``asks``
the ISRs that are asked for and count already, ``waiting`` the produces of acks=all that are not answered yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from raykafka.epoch_history import EpochHistory
from raykafka.replica.rules import events as ev
from tests.lab.transcripts import Command
from tests.unit.partition.register import Controller
from tests.unit.partition.replicas import Broker, Channel, Frame, Produced
from tests.unit.partition.world import World

ACKS = {"all": -1, "1": 1, "0": 0}


class _NoChance(random.Random):
    """Every chance of a World turns out the same way."""

    def random(self) -> float:
        return 0.5


def listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "nobody"


def epochs(history: EpochHistory) -> str:
    return " ".join(f"{epoch}@{start}" for epoch, start in history) or "none"


def told(effect: ev.Effect) -> str:
    """One effect as a line."""
    match effect:
        case ev.Reply(Produced() as produced, error):
            return f"reply to append {produced.record.value} at offset {produced.offset}: {error.name}"
        case ev.SetHistory(history):
            return f"write epochs {epochs(history)}"
        case ev.Truncate(offset):
            return f"truncate to {offset}"
        case ev.Restart(offset):
            return f"drop all records, begin again at {offset}"
        case ev.AdvanceStart(offset):
            return f"delete records below {offset}"
        case ev.OpenStream(follower, hello):
            log = f"log {hello.log_start}..{hello.log_end}, epochs {epochs(hello.history)}, hw {hello.high_watermark}"
            return f"open stream {named(hello.stream)} to {follower}: hello, {log}"
        case ev.CloseStream(_, stream):
            return f"close stream {named(stream)}"
        case ev.Answer(_, log_end, last_epoch):
            return f"answer log end {log_end}, last epoch {last_epoch}"
        case ev.Ack(_, log_end):
            return f"ack {log_end}"
        case ev.Propose(isr, lives, leader_epoch, version):
            return f"propose isr {listed(isr)} of lives {listed(lives)}, in epoch {leader_epoch} at version {version}"
        case ev.Refused(leader_epoch, reason):
            return f"refuse to lead epoch {leader_epoch}: {reason}"
        case ev.Left(seal):
            return f"leave: {sealed(seal) if seal is not None else 'no seal'}"
    return str(effect)


def named(stream: ev.StreamId) -> str:
    """Leader, epoch and number of a stream."""
    return f"{stream.leader}/{stream.leader_epoch}/{stream.number}"


def sealed(seal: ev.Seal) -> str:
    return f"{'leads' if seal.leading else 'knows'} epoch {seal.epoch}, end {seal.log_end}, hw {seal.high_watermark}"


class Stage:
    """One transcript's partition. ``run`` carries out a command."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: dict[str, str] = {}
        self.world: Staged

    def run(self, command: Command) -> list[str]:
        self.lines = []
        if command.name == "brokers":
            self._begin(command)
        elif command.name == "state":
            self.shown.clear()
        else:
            getattr(self, "_" + command.name.replace("-", "_"))(command)
        for name, line in self._state().items():
            if self.shown.get(name) != line:
                self.shown[name] = line
                self.lines.append(f"{name}  {line}")
        return self.lines

    def _begin(self, command: Command) -> None:
        self.world = world = Staged(self.lines_of, command)
        isr = command.options.get("isr")
        if isr is not None:
            state = replace(world.register.state, isr=tuple(map(int, isr.split(","))))
            world.register.write(world.controller.epoch, state.version, state, frozenset())
        self._hear(world.brokers)

    def lines_of(self, broker: int, line: str) -> None:
        self.lines.append(f"{broker}> {line}")

    def _state(self) -> dict[str, str]:
        world, state = self.world, self.world.register.state
        unclean = " (unclean)" if state.unclean_epoch == state.leader_epoch else ""
        leader = f"leader {state.leader}" if state.leader >= 0 else "no leader"
        lines = {
            "c": f"{leader}, epoch {state.leader_epoch}{unclean}, isr {listed(state.isr)}, version {state.version}"
        }
        return lines | {str(b.id): self._broker_line(b) for b in world.brokers.values()}

    def _broker_line(self, b: Broker) -> str:
        disk, partition = b.disk, b.partition
        log = f"log {disk.start}..{disk.end}: {' '.join(f'{r.epoch}/{r.value}' for r in disk.records) or 'empty'}"
        parts = [log, f"epochs {epochs(disk.history)}"]
        if partition is None:
            life = f"closed, {sealed(disk.seal)}" if disk.seal else "not closed in order"
            life = life if b.alive else "dead"
        elif partition.stopped is not None:
            life = f"stopped: {partition.stopped}"
        elif partition.leading is not None:
            leading = partition.leading
            life = f"leads epoch {leading.epoch} from {leading.epoch_start}"
            latest = "unknown" if partition.latest is None else str(partition.latest)
            parts += [f"hw {partition.log.high_watermark}", f"latest {latest}", f"isr {listed(leading.state.isr)}"]
            if leading.undecided:
                parts.append(f"asks {' or '.join(listed(sorted(isr)) for isr in leading.undecided)}")
            if leading.waiting:
                parts.append(f"waiting {len(leading.waiting)}")
        else:
            following = partition.following
            life = f"follows {following.state.leader} in epoch {following.epoch}" if following else "follows nobody"
            parts.append(f"hw {partition.log.high_watermark}")
        return " | ".join([life, *parts])

    def _broker(self, command: Command, number: int = 0) -> Broker:
        return self.world.brokers[int(command.words[number])]

    def _channel(self, command: Command) -> Channel:
        """The newest stream between the two brokers that the command names."""
        leader, follower = map(int, command.words[:2])
        return [c for c in self.world.channels if c.stream.leader == leader and c.follower == follower][-1]

    # clients

    def _append(self, command: Command) -> None:
        world, b, acks = self.world, self._broker(command), ACKS[command.options["acks"]]
        for _ in range(command.number("n", 1)):
            before = world.values
            world.produce(b, acks)
            if world.values == before:
                error = b.partition.admit(acks, -1).name if b.partition else "no replica"
                self.lines_of(b.id, f"refuse the append: {error}")

    # streams

    def _hello(self, command: Command) -> None:
        self.world.deliver_to_follower(self._channel(command))

    def _answer(self, command: Command) -> None:
        channel = self._channel(command)
        if channel.to_leader:
            self.world.deliver_to_leader(channel)
        elif channel.broken:
            self.world.end(channel)

    def _connect(self, command: Command) -> None:
        self._hello(command)
        self._answer(command)

    def _send(self, command: Command) -> None:
        channel = self._channel(command)
        self.world.push(channel, 1000)
        while channel.to_follower:
            frame = channel.to_follower[0]
            before = self.world.brokers[channel.follower].disk.end
            self.world.deliver_to_follower(channel)
            after = self.world.brokers[channel.follower].disk.end
            if isinstance(frame, Frame) and frame.records and after == before:
                self.lines_of(channel.follower, f"drop records from offset {frame.base_offset} on: an old stream's")
        if channel.broken:
            self.world.end(channel)

    def _ack(self, command: Command) -> None:
        channel = self._channel(command)
        while channel.to_leader:
            self.world.deliver_to_leader(channel)

    def _replicate(self, command: Command) -> None:
        channel = self._channel(command)
        self._send(command)
        if channel in self.world.channels:
            self._ack(command)

    def _lose(self, command: Command) -> None:
        self.world.end(self._channel(command), "refused" in command.words)

    # the controller

    def _propose(self, command: Command) -> None:
        world = self.world
        written = world.register.propose(world.controller.epoch, world.proposals.pop(0))
        self.lines.append(f"c> {'written' if written else 'refused'}")

    def _elect(self, command: Command) -> None:
        world, controller = self.world, self.world.controller
        for b in world.brokers.values():
            if not b.alive:
                world.register.remove(controller.epoch, b.id, b.epoch)
        controller.read()
        controller.unclean = "unclean" in command.words
        for broker, epoch in world.failures:
            controller.failed.add((broker, epoch))
        world.decide(controller, outcome_known=False)

    def _move_leader(self, command: Command) -> None:
        world, state = self.world, self.world.register.state
        moved = replace(state, leader=self._broker(command).id, leader_epoch=state.leader_epoch + 1)
        world.register.write(world.controller.epoch, state.version, moved, frozenset())

    def _tell(self, command: Command) -> None:
        self._hear(map(int, command.words) if command.words else self.world.brokers)

    def _hear(self, brokers: Iterable[int]) -> None:
        world, controller = self.world, self.world.controller
        controller.read()
        for broker in brokers:
            if controller.may_tell(broker):
                world.tell(controller, broker)
            else:
                self.lines.append(f"c> {broker} may have lost its tail: not told before it has left the isr")
            waiting = world.controls.get((controller.epoch, broker), ())
            while waiting:
                world.hear(controller.epoch, broker)

    # lives

    def _kill(self, command: Command) -> None:
        self._end(command, self.world.hosts.kill)

    def _end(self, command: Command, how: Callable[[int], None]) -> None:
        how(self._broker(command).id)
        for channel in [c for c in self.world.channels if c.broken]:
            self.world.end(channel)

    def _start(self, command: Command) -> None:
        self.world.hosts.start(self._broker(command).id)

    def _power_off(self, command: Command) -> None:
        b = self._broker(command)
        self._kill(command)
        b.tainted = True
        del b.disk.records[len(b.disk.records) - int(command.options["lost"]) :]
        self.world.damage(b.id)

    def _kill_actor(self, command: Command) -> None:
        self._end(command, lambda broker: self.world.hosts.kill_actor(broker, self.world.brokers[broker].actor))

    def _leave(self, command: Command) -> None:
        self._end(command, lambda broker: self.world.step(self.world.brokers[broker], ev.Leave()))

    def _open(self, command: Command) -> None:
        self.world.open(self._broker(command))

    def _tick(self, command: Command) -> None:
        self.world.hosts.now_ms += int(command.options["ms"])
        self.world.step(self._broker(command), ev.Tick())


class Staged(World):
    """A world in which nothing happens by chance, and every effect is told."""

    def __init__(self, tell: Callable[[int, str], None], command: Command) -> None:
        self._tell_line = tell
        super().__init__(
            _NoChance(0),
            brokers=int(command.words[0]),
            min_insync_replicas=command.number("min.insync", 1),
            unclean="unclean" in command.words,
        )
        self.faults = False
        self.controls.clear()

    @property
    def controller(self) -> Controller:
        return self.controllers[-1]

    def carry(self, b: Broker, effect: ev.Effect) -> None:
        self._tell_line(b.id, told(effect))
        super().carry(b, effect)
