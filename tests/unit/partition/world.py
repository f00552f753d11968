"""One partition in memory: disks, opened replicas, streams, control links; and the properties, checked as it runs.
Several of them share the brokers and actors of ``hosts.py``.

The world carries out what the rules ask for, in order, and may die between two effects. ``schedule.py`` chooses what
happens next.
"""

from __future__ import annotations

import random
from collections import deque

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.replica.rules import events as ev
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import Partition
from tests.unit.partition.hosts import Hosts
from tests.unit.partition.register import Controller, ControllerRules, Register
from tests.unit.partition.replicas import Broker, BrokerRules, Channel, Disk, Frame, Produced, Record

ACKED_LOST = "no record acknowledged with acks=all is lost while one in-sync replica survives"
ONE_RECORD = "no two different records are at one leader epoch and offset"
LOGS_AGREE = "in-sync logs agree below the high watermark"
READS_STAY = "what a consumer read never changes or vanishes"
LATEST_GROWS = "latest never goes back"
LIVE_STAYS = "a live broker is not taken for dead"
LEADS_ON = "a leader that moves to another actor leads on in its epoch"
CONVERGES = "when faults end, every replica gets in sync and writes go on"


class Violation(AssertionError):
    """The property ``name`` does not hold."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


class World:
    def __init__(
        self,
        random_: random.Random,
        *,
        hosts: Hosts | None = None,
        brokers: int = 3,
        min_insync_replicas: int = 1,
        unclean: bool = False,
        partition_rules: type[Partition] = Partition,
        controller_rules: ControllerRules | None = None,
        broker_rules: BrokerRules | None = None,
    ) -> None:
        self.random = random_
        self.hosts = hosts = hosts or Hosts(random_, brokers)
        self.broker_rules = broker_rules or BrokerRules()
        self.partition_rules = partition_rules
        self.settings = Settings(min_insync_replicas, lag_ms=60, retry_ms=20)
        self.unclean = unclean
        ids = tuple(hosts.by_id)
        state = PartitionState(ids, 1, 0, ids, 0)
        self.register = Register(state, controller_rules or ControllerRules(), hosts.lives)
        self.brokers = {b: Broker(b, host) for b, host in hosts.by_id.items()}
        self.channels: list[Channel] = []
        self.controls: dict[tuple[int, int], deque[tuple[int, ev.Told]]] = {}
        self.proposals: list[ev.Propose] = []
        self.failures: list[tuple[int, int]] = []
        self.faults = True
        self.openings = 0
        self.values = 0
        self.damaged: dict[int, int] = {}
        # what happened, for the properties
        self.written: dict[tuple[int, int], int] = {}
        self.committed: dict[int, Record] = {}
        self.acked: dict[int, Record] = {}
        self.was_read: dict[int, Record] = {}
        self.latest = (-1, -1)
        self.deleted_to = 0
        self.counts: dict[str, int] = {}
        self.controllers = [Controller(self.register, unclean)]
        self.tell_all(self.controllers[0])
        hosts.partitions.append(self)

    @property
    def now_ms(self) -> int:
        return self.hosts.now_ms

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # lives

    def started(self, broker: int) -> None:
        b = self.brokers[broker]
        self.register.registered(broker, b.tainted)
        b.tainted = False
        b.told = b.told_before = None
        b.controller_epoch = -1

    def ended(self, broker: int, closing: bool) -> None:
        b = self.brokers[broker]
        if closing and b.partition is not None:
            seal = b.partition.closing_seal()
            if seal is not None:
                self.count("closed at its broker's death")
                b.disk.seal = seal
        if self.broker_rules.leads_on_in_one_life:
            b.left = None
        self.kill_replica(b)

    def actor_ended(self, broker: int, actor: int, reported: bool) -> None:
        b = self.brokers[broker]
        if b.partition is not None and b.actor == actor:
            if reported and b.partition.leading:
                self.failures.append((b.id, b.partition.epoch))
            self.kill_replica(b)

    def kill_replica(self, b: Broker) -> None:
        """It ends without closing its log, as its actor does, or as one that failed does alone."""
        for channel in self.channels:
            if b.opened and b.opened in (channel.leader_opened, channel.follower_opened):
                channel.broken = True
        b.partition = None
        b.opened = 0

    def fail(self, b: Broker) -> None:
        """Its log can't be relied on any more (rule 1)."""
        self.count("failed")
        self.step(b, ev.Cut("failed"))
        self.kill_replica(b)

    def lose_page_cache(self, broker: int) -> None:
        b = self.brokers[broker]
        b.tainted = True
        disk = b.disk
        if disk.end > max(disk.flushed, disk.start):
            disk.seal = None
            if self.may_damage(broker):
                end = self.random.randint(max(disk.flushed, disk.start), disk.end - 1)
                del disk.records[end - disk.start :]
                self.damage(broker)

    def lose_disk(self, broker: int) -> None:
        b = self.brokers[broker]
        b.tainted = True
        b.disk = Disk()
        self.damage(broker)

    def controlled(self) -> None:
        self.controllers.append(Controller(self.register, self.unclean))

    def may_damage(self, broker: int) -> bool:
        """Records are lost on one in-sync replica at a time: another one that has them all survives."""
        self.note_repairs()
        sound = set(self.register.state.isr) - self.damaged.keys() - {broker}
        return bool(sound)

    def damage(self, broker: int) -> None:
        self.damaged[broker] = self.brokers[broker].epoch
        self.count("damaged")

    def note_repairs(self) -> None:
        """A damaged replica counts as sound again once its new life has been out of the ISR."""
        for broker, life in list(self.damaged.items()):
            if broker not in self.register.state.isr and self.register.lives.broker_epochs[broker] > life:
                del self.damaged[broker]

    def open(self, b: Broker) -> None:
        """The broker has an actor open the log, with the seal that was left, and tells it the state."""
        disk, rules = b.disk, self.broker_rules
        told = b.told if rules.images_come_first else b.told_before or b.told
        assert told is not None
        seal = b.left or (disk.seal and disk.seal.as_found_on_disk()) if disk.seal else None
        if rules.seal_opens_once:
            disk.seal = b.left = None
        self.openings += 1
        b.opened = self.openings
        b.actor = self.hosts.actor_for(b.id, b.actor)
        b.partition = opened = self.partition_rules(
            b.id,
            self.settings,
            log_start=disk.start,
            log_end=disk.end,
            history=disk.history,
            checkpoint=disk.checkpoint,
            seal=seal,
        )
        b.checked = disk.start
        state = told.state
        leads_on = seal is not None and seal.leading and (b.id, seal.epoch) == (state.leader, state.leader_epoch)
        fits = seal is not None and seal.log_end == disk.end
        self.step(b, told)
        if seal is not None and leads_on and fits and b.partition is opened:
            self.count("led on")
            if opened.leading is None or opened.epoch_start != seal.epoch_start:
                raise Violation(LEADS_ON, f"epoch {seal.epoch} on broker {b.id}")

    def leave(self, b: Broker) -> bool:
        """The replica gives its log up for another actor of its broker: whether it does."""
        opened = b.opened
        self.step(b, ev.Leave())
        return b.opened != opened

    # the rules, and what they ask for

    def step(self, b: Broker, event: ev.Event) -> None:
        partition = b.partition
        assert partition is not None
        before = partition.epoch if partition.leading else -1
        effects = partition.step(event, self.now_ms)
        try:
            for effect in effects:
                if self.faults and self.random.random() < 0.004:
                    self.count("killed between effects")
                    self.hosts.kill_actor(b.id, b.actor)
                    return
                self.carry(b, effect)
        finally:
            if b.partition is partition and partition.stopped is None:
                self.check_high_watermark(b, partition)
                if partition.leading and partition.epoch != before:
                    self.check_new_leader(b)

    def carry(self, b: Broker, effect: ev.Effect) -> None:
        disk = b.disk
        match effect:
            case ev.Reply(token, error):
                if error == ErrorCode.NONE and token.acks == -1:
                    self.acked[token.offset] = token.record
                    self.count("acked")
            case ev.SetHistory(history):
                disk.history = history
            case ev.Truncate(offset):
                self.count("truncations")
                del disk.records[offset - disk.start :]
                disk.flushed = min(disk.flushed, offset)
            case ev.Restart(offset):
                self.count("restarts")
                disk.records.clear()
                disk.start = disk.flushed = offset
            case ev.AdvanceStart(offset):
                del disk.records[: offset - disk.start]
                disk.start = offset
            case ev.OpenStream(follower, hello):
                self.channels.append(Channel(b, follower, hello))
            case ev.CloseStream(follower, stream):
                for channel in self.channels_of(stream, follower):
                    channel.broken = True
            case ev.Answer(stream) | ev.Ack(stream):
                for channel in self.channels_of(stream, b.id):
                    channel.to_leader.append((effect, b.epoch))
            case ev.Propose():
                self.proposals.append(effect)
            case ev.Refused(epoch):
                self.failures.append((b.id, epoch))
            case ev.Diverged():
                raise Violation(ACKED_LOST, f"broker {b.id} would truncate what was committed: {effect}")
            case ev.Left(seal):
                self.count("left")
                self.shut(b, seal)

    def close(self, b: Broker) -> None:
        """The broker has the log closed in order, at any moment."""
        partition = b.partition
        seal = partition.closing_seal() if partition else None
        if partition is not None and seal is not None:
            self.count("closed")
            self.step(b, ev.Cut("closed"))
            if b.partition is partition:
                self.shut(b, seal)

    def shut(self, b: Broker, seal: ev.Seal | None) -> None:
        disk, partition = b.disk, b.partition
        assert partition is not None
        disk.flushed = disk.end
        disk.checkpoint = partition.checkpoint
        disk.seal = b.left = seal
        self.kill_replica(b)

    def channels_of(self, stream: ev.StreamId, follower: int) -> list[Channel]:
        return [c for c in self.channels if c.stream == stream and c.follower == follower]

    # appends and reads

    def write(self, b: Broker, record: Record) -> None:
        offset = b.disk.end
        if self.written.setdefault((record.epoch, offset), record.value) != record.value:
            raise Violation(ONE_RECORD, f"epoch {record.epoch}, offset {offset} on broker {b.id}")
        b.disk.records.append(record)

    def produce(self, b: Broker, acks: int) -> None:
        partition = b.partition
        if partition is None or partition.admit(acks, -1) != ErrorCode.NONE:
            return
        self.values += 1
        record = Record(partition.epoch, self.values)
        offset = b.disk.end
        self.write(b, record)
        if self.faults and self.random.random() < 0.004:
            self.hosts.kill_actor(b.id, b.actor)
            return
        self.step(b, ev.Wrote(Produced(acks, offset, record), acks, offset, self.now_ms + 100))

    def consume(self, b: Broker) -> None:
        partition = b.partition
        if self.unclean or partition is None or partition.leading is None:
            return
        epoch, latest, readable_end = partition.epoch, partition.latest, partition.readable_end
        if latest is not None and epoch >= self.latest[0]:
            if latest < self.latest[1]:
                raise Violation(LATEST_GROWS, f"{latest} at broker {b.id} after {self.latest}")
            self.latest = (epoch, latest)
        if readable_end > b.disk.start:
            offset = self.random.randint(b.disk.start, readable_end - 1)
            record = b.disk.at(offset)
            if record is None or self.was_read.setdefault(offset, record) != record:
                raise Violation(READS_STAY, f"offset {offset} reads {record} at broker {b.id}")
            self.count("reads")

    def delete_records(self, b: Broker) -> None:
        partition = b.partition
        if partition and partition.leading and partition.log.high_watermark > b.disk.start:
            offset = self.random.randint(b.disk.start, partition.log.high_watermark)
            self.deleted_to = max(self.deleted_to, offset)
            self.carry(b, ev.AdvanceStart(offset))
            partition.log.start = b.disk.start
            b.checked = max(b.checked, offset)

    # streams

    def push(self, channel: Channel, count: int) -> None:
        """The leader streams up to ``count`` records, or just its high watermark."""
        b = self.brokers[channel.stream.leader]
        leading = b.partition.leading if b.partition and b.opened == channel.leader_opened else None
        follower = leading.followers.get(channel.follower) if leading else None
        if leading is None or follower is None or follower.stream != channel.stream or not follower.handshake_done:
            return
        if channel.next < b.disk.start:
            channel.broken = True
            return
        at = channel.next - b.disk.start
        records = tuple(b.disk.records[at : at + count])
        channel.to_follower.append(Frame(channel.next, records, b.disk.start, leading.log.high_watermark))
        channel.next += len(records)

    def deliver_to_follower(self, channel: Channel) -> None:
        b = self.brokers[channel.follower]
        frame = channel.to_follower.popleft()
        if isinstance(frame, ev.Hello):
            if b.partition is None:
                channel.broken = True
                return
            channel.follower_opened, channel.follower_actor = b.opened, b.actor
            self.step(b, frame)
            return
        if b.partition is None or b.opened != channel.follower_opened:
            channel.broken = True
        elif b.partition.following is not None:
            if frame.records:
                if not b.partition.following.takes(channel.stream, frame.base_offset):
                    return
                for record in frame.records:
                    self.write(b, record)
            received = ev.Received(channel.stream, b.disk.end, frame.log_start, frame.high_watermark)
            self.step(b, received)

    def deliver_to_leader(self, channel: Channel) -> None:
        b = self.brokers[channel.stream.leader]
        effect, broker_epoch = channel.to_leader.popleft()
        if b.partition is None or b.opened != channel.leader_opened:
            return
        if isinstance(effect, ev.Ack):
            self.step(b, ev.Acked(channel.follower, channel.stream, effect.log_end))
            return
        channel.next = effect.log_end
        self.step(b, ev.Answered(channel.follower, channel.stream, broker_epoch, effect.log_end, effect.last_epoch))

    def end(self, channel: Channel, refused: bool = False) -> None:
        """Both sides see end-of-file. ``refused``: because the follower could not write what came."""
        self.channels.remove(channel)
        lost = ev.StreamLost(channel.follower, channel.stream, refused)
        for b, opened in (
            (self.brokers[channel.stream.leader], channel.leader_opened),
            (self.brokers[channel.follower], channel.follower_opened),
        ):
            if b.partition is not None and b.opened == opened:
                self.step(b, lost)

    # control

    def tell(self, controller: Controller, broker: int) -> None:
        registration = controller.ids.get(broker)
        if registration is not None and controller.may_tell(broker):
            told = ev.Told(controller.state, controller.broker_epochs)
            self.controls.setdefault((controller.epoch, broker), deque()).append((registration.broker_epoch, told))

    def tell_all(self, controller: Controller) -> None:
        for broker in self.brokers:
            self.tell(controller, broker)

    def hear(self, controller_epoch: int, broker: int) -> None:
        """A broker takes the next decision off its link to a controller (rule 16)."""
        broker_epoch, told = self.controls[controller_epoch, broker].popleft()
        b = self.brokers[broker]
        if not b.alive or b.epoch != broker_epoch or controller_epoch < b.controller_epoch:
            return
        b.controller_epoch = controller_epoch
        known = b.told.state if b.told is not None else None
        state = told.state
        if known is not None and (state.leader_epoch, state.version) < (known.leader_epoch, known.version):
            return
        b.told_before, b.told = b.told, told
        if b.partition is None:
            self.open(b)
        else:
            self.step(b, told)

    def decide(self, controller: Controller, outcome_known: bool) -> None:
        due = controller.decide()
        if due is None:
            return
        state, cleared = due
        written = self.register.write(controller.epoch, controller.state.version, state, cleared)
        if written and state.leader_epoch != controller.state.leader_epoch:
            self.count("elections")
        self.note_repairs()
        if outcome_known:
            controller.read()
            self.tell_all(controller)

    def propose(self, controller: Controller, proposal: ev.Propose, outcome_known: bool) -> None:
        if self.register.propose(controller.epoch, proposal):
            self.count("proposals written")
        if outcome_known:
            controller.read()
            self.tell_all(controller)

    def remove(self, controller: Controller, broker: int, life: int) -> None:
        """The controller, refused by the dead ``life``, takes its registration away, perhaps late."""
        b = self.brokers[broker]
        if self.register.remove(controller.epoch, broker, life) and b.alive and b.epoch != life:
            raise Violation(LIVE_STAYS, f"broker {broker} lives its life {b.epoch}; {life} is dead")

    # properties

    def check_high_watermark(self, b: Broker, partition: Partition) -> None:
        high_watermark = partition.log.high_watermark
        if self.unclean or high_watermark <= b.checked:
            return
        for offset in range(max(b.checked, b.disk.start), high_watermark):
            record = b.disk.at(offset)
            if record is None or self.committed.setdefault(offset, record) != record:
                raise Violation(LOGS_AGREE, f"offset {offset} is {record} on broker {b.id}")
        b.checked = high_watermark

    def check_new_leader(self, b: Broker) -> None:
        """A leader of the newest epoch holds all that was promised before."""
        self.count("leaders")
        state = self.register.state
        if self.unclean or (state.leader, state.leader_epoch) != (b.id, b.partition.epoch if b.partition else -1):
            return
        self.check_holds(b)

    def check_holds(self, b: Broker) -> None:
        if b.disk.start > self.deleted_to:
            raise Violation(READS_STAY, f"the log of broker {b.id} starts at {b.disk.start}")
        for name, promised in ((ACKED_LOST, self.acked), (READS_STAY, self.was_read), (LOGS_AGREE, self.committed)):
            for offset, record in promised.items():
                if offset >= b.disk.start and b.disk.at(offset) != record:
                    raise Violation(name, f"offset {offset}: {record}, broker {b.id} holds {b.disk.at(offset)}")
