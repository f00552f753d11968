"""Random schedules of some partitions on the same brokers and actors: faults and work in any order, then a quiet time
in which all must come right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from raykafka.replica.rules import events as ev
from raykafka.replica.rules.partition import Partition
from tests.unit.partition.hosts import Host, Hosts
from tests.unit.partition.register import Controller, ControllerRules
from tests.unit.partition.replicas import Broker, BrokerRules, Channel
from tests.unit.partition.world import CONVERGES, Violation, World

PHASES = 7
_QUIET_ROUNDS = 80


_Action = Callable[[World], None]
_Mix = tuple[list[_Action], list[float]]


class Schedule:
    """One seed's schedule. ``run`` raises Violation when a property does not hold.

    Work is done on one partition at a time; a fault of a broker, of an actor or of a connection is one of all that have
    it in common.
    """

    def __init__(
        self,
        seed: int,
        *,
        partition_rules: type[Partition] = Partition,
        controller_rules: ControllerRules | None = None,
        broker_rules: BrokerRules | None = None,
        unclean: bool | None = None,
    ) -> None:
        self.seed = seed
        self.random = r = random.Random(seed)
        self.hosts = Hosts(r, brokers=r.choice((2, 3, 3, 3, 4)), actors=r.choice((1, 1, 2, 3)))
        self.worlds = [
            World(
                r,
                hosts=self.hosts,
                min_insync_replicas=r.choice((1, 1, 2)),
                unclean=r.random() < 0.1 if unclean is None else unclean,
                partition_rules=partition_rules,
                controller_rules=controller_rules,
                broker_rules=broker_rules,
            )
            for _ in range(r.choice((1, 1, 1, 1, 2, 3)))
        ]
        self.suspicions: list[tuple[int, int]] = []
        self.slow: set[int] = set()
        self.fault_rate = r.choice((0.7, 2.0, 4.0))
        self.faults: _Mix = ([], [])

    def run(self, phases: int = PHASES) -> Counter[str]:
        """Each phase has its own mix of work and faults, and may have brokers that nothing reaches meanwhile: what is
        rare in one phase is common in another. Returns what happened how often."""
        r = self.random
        for _ in range(phases):
            self.slow = set(r.sample(sorted(self.hosts.by_id), r.choice((0, 0, 0, 1, 1))))
            actions, weights = self._mix(
                {
                    self.deliver: 30,
                    self.push: 14,
                    self.produce: 14,
                    self.hear: 14,
                    self.control: 8,
                    self.propose: 7,
                    self.tick: 6,
                    self.consume: 7,
                    self.start: 5,
                    self.move: 2,
                    self.housekeep: 3,
                    self.fault: self.fault_rate,
                }
            )
            self.faults = self._mix(
                {
                    self.kill: 3,
                    self.power_off: 3,
                    self.replace_disk: 0.4,
                    self.kill_actor: 2,
                    self.fail: 1,
                    self.cut: 3,
                    self.expire: 1,
                    self.notice: 1,
                    self.new_controller: 1.5,
                }
            )
            for action in r.choices(actions, cum_weights=weights, k=r.randint(10, 50)):
                action(r.choice(self.worlds))
        self.quiet()
        return sum((Counter(world.counts) for world in self.worlds), Counter())

    def _mix(self, weights: dict[_Action, float]) -> _Mix:
        mixed = [weight * self.random.choice((0.2, 1.0, 1.0, 3.0)) for weight in weights.values()]
        return list(weights), list(accumulate(mixed))

    def any_broker(self, world: World) -> Broker:
        return self.random.choice(list(world.brokers.values()))

    def leader(self, world: World) -> Broker:
        """One that thinks it leads, if there is one."""
        leaders = [b for b in world.brokers.values() if b.partition and b.partition.leading]
        return self.random.choice(leaders) if leaders else self.any_broker(world)

    def controller(self, world: World) -> Controller:
        """Mostly the newest; sometimes one that does not know that it was replaced."""
        controllers = world.controllers
        return controllers[-1] if self.random.random() < 0.85 else self.random.choice(controllers)

    # work

    def produce(self, world: World) -> None:
        world.produce(self.leader(world), -1 if self.random.random() < 0.8 else 1)

    def consume(self, world: World) -> None:
        world.consume(self.leader(world))

    def channel(self, world: World) -> Channel | None:
        reached = [c for c in world.channels if c.follower not in self.slow and c.stream.leader not in self.slow]
        return self.random.choice(reached) if reached else None

    def push(self, world: World) -> None:
        channel = self.channel(world)
        if channel is not None:
            world.push(channel, self.random.randint(0, 3))

    def deliver(self, world: World) -> None:
        channel = self.channel(world)
        if channel is None:
            return
        for _ in range(self.random.choice((1, 1, 2, 4))):
            ways: list[Callable[[Any], None]] = []
            if channel.to_follower:
                ways.append(world.deliver_to_follower)
            if channel.to_leader:
                ways.append(world.deliver_to_leader)
            if channel.broken and (not ways or self.random.random() < 0.2):
                world.end(channel, refused=self.random.random() < 0.2)
                return
            if ways:
                self.random.choice(ways)(channel)

    def hear(self, world: World) -> None:
        links = [link for link, waiting in world.controls.items() if waiting and link[1] not in self.slow]
        if links:
            link = self.random.choice(links)
            for _ in range(self.random.choice((1, len(world.controls[link])))):
                world.hear(*link)

    def propose(self, world: World) -> None:
        if not world.proposals:
            return
        at = self.random.randrange(len(world.proposals))
        chance = self.random.random()
        proposal = world.proposals[at] if chance < 0.15 else world.proposals.pop(at)
        if chance < 0.9:
            world.propose(self.controller(world), proposal, outcome_known=self.random.random() < 0.8)

    def control(self, world: World) -> None:
        r = self.random
        controller = self.controller(world)
        chance = r.random()
        if chance < 0.4:
            controller.read()
            world.tell(controller, self.any_broker(world).id)
        elif chance < 0.9:
            if r.random() < 0.6:
                controller.read()
            if world.failures and r.random() < 0.7:
                controller.failed.add(world.failures.pop(r.randrange(len(world.failures))))
            world.decide(controller, outcome_known=r.random() < 0.8)
        elif self.suspicions:
            world.remove(controller, *self.suspicions[r.randrange(len(self.suspicions))])
        for b in world.brokers.values():
            if not b.alive:
                self.suspicions.append((b.id, b.epoch))

    def tick(self, world: World) -> None:
        self.hosts.now_ms += self.random.randint(1, 40)
        for b in world.brokers.values():
            if b.partition is not None:
                world.step(b, ev.Tick())

    def start(self, world: World) -> None:
        """A dead broker comes back, or a live one has its replica opened again."""
        down = [b for b in world.brokers.values() if b.partition is None and (b.told or not b.alive)]
        if down:
            b = self.random.choice(down)
            if b.alive:
                world.open(b)
            else:
                self.hosts.start(b.id)
                for each in self.worlds:
                    controller = self.controller(each)
                    self.random.choice((controller.read, controller.read_brokers))()
                    each.tell(controller, b.id)

    def move(self, world: World) -> None:
        """A replica goes to another actor of its broker, which mostly opens it at once."""
        r = self.random
        b = self.leader(world) if r.random() < 0.7 else self.any_broker(world)
        if r.random() < 0.5:
            self.stream_all(world)
        if b.partition is not None and world.leave(b) and b.alive and b.told and r.random() < 0.8:
            world.open(b)

    def housekeep(self, world: World) -> None:
        b = self.any_broker(world)
        partition = b.partition
        chance = self.random.random()
        if chance < 0.45 and partition is not None:
            b.disk.checkpoint = partition.checkpoint
        elif chance < 0.8:
            b.disk.flushed = b.disk.end
        elif chance < 0.85 and partition is not None:
            world.close(b)
        else:
            world.delete_records(b)

    # faults

    def fault(self, world: World) -> None:
        actions, weights = self.faults
        self.random.choices(actions, cum_weights=weights)[0](world)
        world.count("faults")

    def any_host(self) -> tuple[int, Host]:
        return self.random.choice(list(self.hosts.by_id.items()))

    def kill(self, world: World) -> None:
        """A broker is killed; its actors have the time to close their logs, or end with it."""
        self.hosts.kill(self.any_host()[0], closing=self.random.random() < 0.5)

    def power_off(self, world: World) -> None:
        self.hosts.power_off(self.any_host()[0])

    def replace_disk(self, world: World) -> None:
        self.hosts.replace_disk(self.any_host()[0])

    def kill_actor(self, world: World) -> None:
        """The broker sees its actor's end-of-file, and reports all of its leaderships; the report may be lost."""
        broker, host = self.any_host()
        actor = self.random.choice(host.actors)
        there = [b for b in (w.brokers[broker] for w in self.worlds) if b.partition is not None and b.actor == actor]
        if len(there) > 1:
            world.count("replicas ended together")
        self.hosts.kill_actor(broker, actor, reported=self.random.random() < 0.7)

    def fail(self, world: World) -> None:
        """A replica fails alone: what else its actor has open stays."""
        b = self.any_broker(world)
        if b.partition is not None:
            world.fail(b)

    def cut(self, world: World) -> None:
        """A stream ends, or the connection between two actors with all the streams on it."""
        if not world.channels:
            return
        cut = self.random.choice(world.channels)
        cut.broken = True
        if self.random.random() < 0.5:
            for channel in [c for w in self.worlds for c in w.channels]:
                channel.broken |= channel.actors == cut.actors

    def expire(self, world: World) -> None:
        """A session ends while its broker lives on, and does not know yet."""
        self.hosts.lives.ids.pop(self.any_host()[0], None)

    def notice(self, world: World) -> None:
        """A broker reads that its registration is gone, and ends (rule 15)."""
        broker, host = self.any_host()
        if host.alive and not self.hosts.is_registered(broker):
            self.hosts.kill(broker)

    def new_controller(self, world: World) -> None:
        self.hosts.new_controller()

    # the quiet time

    def quiet(self) -> None:
        """No more faults: brokers come back, one controller decides, every frame arrives. All must come right."""
        self.hosts.lives.controller_epoch += 1
        for world in self.worlds:
            world.faults = False
            world.controllers.clear()
            world.controlled()
            world.controls.clear()
            world.proposals.clear()
        for broker, host in self.hosts.by_id.items():
            if host.alive and not self.hosts.is_registered(broker):
                self.hosts.kill(broker)
            if not host.alive:
                self.hosts.start(broker)
        for world in self.worlds:
            self.come_right(world)

    def come_right(self, world: World) -> None:
        acked = -1
        for _ in range(_QUIET_ROUNDS):
            self.settle(world)
            if self.is_in_sync(world):
                leader = world.brokers[world.register.state.leader]
                if acked >= 0 and len(world.acked) > acked:
                    if not world.unclean:
                        world.check_holds(leader)
                    return
                acked = len(world.acked)
                world.produce(leader, -1)
            elif self.is_offline_by_rule(world):
                world.count("offline by rule")
                return
        raise Violation(CONVERGES, f"{world.register.state}")

    def settle(self, world: World) -> None:
        controller = world.controllers[0]
        self.hosts.now_ms += 25
        controller.failed.update(world.failures)
        world.failures.clear()
        controller.read()
        world.decide(controller, outcome_known=True)
        controller.read()
        world.tell_all(controller)
        for link, waiting in list(world.controls.items()):
            while waiting:
                world.hear(*link)
        for b in world.brokers.values():
            if b.partition is None and b.told is not None:
                world.open(b)
            if b.partition is not None:
                world.step(b, ev.Tick())
        while world.proposals:
            world.propose(controller, world.proposals.pop(0), outcome_known=True)
        self.stream_all(world)

    def stream_all(self, world: World) -> None:
        """Every frame on its way arrives, and what the leaders have."""
        for channel in list(world.channels):
            for _ in range(3):
                while channel.to_follower:
                    world.deliver_to_follower(channel)
                while channel.to_leader:
                    world.deliver_to_leader(channel)
                world.push(channel, 1000)
            if channel.broken:
                world.end(channel)

    def is_in_sync(self, world: World) -> bool:
        state = world.register.state
        if state.leader < 0 or set(state.isr) != set(world.brokers):
            return False
        leader = world.brokers[state.leader]
        if leader.partition is None or leader.partition.leading is None:
            return False
        ends = {b.disk.end for b in world.brokers.values()}
        return (
            ends == {leader.partition.log.high_watermark}
            and leader.partition.leading.epoch == state.leader_epoch
            and not leader.partition.leading.undecided
            and self.logs_are_equal(world)
        )

    def logs_are_equal(self, world: World) -> bool:
        disks = [b.disk for b in world.brokers.values()]
        start = max(disk.start for disk in disks)
        first = disks[0].records[start - disks[0].start :]
        return all(disk.records[start - disk.start :] == first for disk in disks)

    def is_offline_by_rule(self, world: World) -> bool:
        """The last in-sync replica lost its page cache or its disk, and nobody asked for an unclean election (rule
        18)."""
        state = world.register.state
        return state.leader < 0 and not world.unclean and set(state.isr) <= world.register.tainted.keys()
