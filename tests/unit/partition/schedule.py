"""Random schedules of a partition group: faults and work in any order, then a quiet time in which all must come
right."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from raykafka.replica.rules import events as ev
from raykafka.replica.rules.partition import Partition
from tests.unit.partition.register import Controller, ControllerRules
from tests.unit.partition.world import CONVERGES, Broker, Channel, Violation, World

PHASES = 7
_QUIET_ROUNDS = 80


_Mix = tuple[list[Callable[[], None]], list[float]]


class Schedule:
    """One seed's schedule. ``run`` raises Violation when a property does not hold."""

    def __init__(
        self,
        seed: int,
        *,
        partition_rules: type[Partition] = Partition,
        controller_rules: ControllerRules | None = None,
        unclean: bool | None = None,
    ) -> None:
        self.seed = seed
        self.random = r = random.Random(seed)
        self.world = World(
            r,
            brokers=r.choice((2, 3, 3, 3, 4)),
            min_insync_replicas=r.choice((1, 1, 2)),
            unclean=r.random() < 0.1 if unclean is None else unclean,
            partition_rules=partition_rules,
            controller_rules=controller_rules,
        )
        self.suspicions: list[tuple[int, int]] = []
        self.slow: set[int] = set()
        self.fault_rate = r.choice((0.7, 2.0, 4.0))
        self.faults: _Mix = ([], [])

    def run(self, phases: int = PHASES) -> World:
        """Each phase has its own mix of work and faults, and may have brokers that nothing reaches meanwhile: what is
        rare in one phase is common in another."""
        r = self.random
        for _ in range(phases):
            self.slow = set(r.sample(sorted(self.world.brokers), r.choice((0, 0, 0, 1, 1))))
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
                    self.doze: 0.7,
                    self.join_asleep: 3,
                    self.housekeep: 3,
                    self.fault: self.fault_rate,
                }
            )
            self.faults = self._mix(
                {
                    self.kill: 3,
                    self.power_off: 3,
                    self.replace_disk: 0.4,
                    self.kill_replica: 2,
                    self.cut: 3,
                    self.expire: 1,
                    self.notice: 1,
                    self.new_controller: 1.5,
                }
            )
            for action in r.choices(actions, cum_weights=weights, k=r.randint(10, 70)):
                action()
        self.quiet()
        return self.world

    def _mix(self, weights: dict[Callable[[], None], float]) -> _Mix:
        mixed = [weight * self.random.choice((0.2, 1.0, 1.0, 3.0)) for weight in weights.values()]
        return list(weights), list(accumulate(mixed))

    def any_broker(self) -> Broker:
        return self.random.choice(list(self.world.brokers.values()))

    def leader(self) -> Broker:
        """One that thinks it leads, or sleeps, if there is one."""
        leaders = [b for b in self.world.brokers.values() if b.asleep or (b.partition and b.partition.leading)]
        return self.random.choice(leaders) if leaders else self.any_broker()

    def controller(self) -> Controller:
        """Mostly the newest; sometimes one that does not know that it was replaced."""
        controllers = self.world.controllers
        return controllers[-1] if self.random.random() < 0.85 else self.random.choice(controllers)

    # work

    def produce(self) -> None:
        self.world.produce(self.leader(), -1 if self.random.random() < 0.8 else 1)

    def consume(self) -> None:
        self.world.consume(self.leader())

    def channel(self) -> Channel | None:
        reached = [c for c in self.world.channels if c.follower not in self.slow and c.stream.leader not in self.slow]
        return self.random.choice(reached) if reached else None

    def push(self) -> None:
        channel = self.channel()
        if channel is not None:
            self.world.push(channel, self.random.randint(0, 3))

    def deliver(self) -> None:
        world, channel = self.world, self.channel()
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

    def hear(self) -> None:
        world = self.world
        links = [link for link, waiting in world.controls.items() if waiting and link[1] not in self.slow]
        if links:
            link = self.random.choice(links)
            for _ in range(self.random.choice((1, len(world.controls[link])))):
                world.hear(*link)

    def propose(self) -> None:
        world = self.world
        if not world.proposals:
            return
        at = self.random.randrange(len(world.proposals))
        chance = self.random.random()
        proposal = world.proposals[at] if chance < 0.15 else world.proposals.pop(at)
        if chance < 0.9:
            world.propose(self.controller(), proposal, outcome_known=self.random.random() < 0.8)

    def control(self) -> None:
        world, r = self.world, self.random
        controller = self.controller()
        chance = r.random()
        if chance < 0.4:
            controller.read()
            world.tell(controller, self.any_broker().id)
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

    def tick(self) -> None:
        world = self.world
        world.now_ms += self.random.randint(1, 40)
        for b in world.brokers.values():
            if b.partition is not None:
                world.step(b, ev.Tick())

    def start(self) -> None:
        """A dead broker comes back, or a live one starts its replica's process again."""
        world = self.world
        down = [b for b in world.brokers.values() if b.partition is None and not b.asleep and (b.told or not b.alive)]
        if down:
            b = self.random.choice(down)
            if b.alive:
                world.open(b)
            else:
                world.start(b.id)
                controller = self.controller()
                self.random.choice((controller.read, controller.read_brokers))()
                world.tell(controller, b.id)

    def doze(self) -> None:
        """Nothing is written for a while, and leaders fall asleep."""
        world = self.world
        for _ in range(3):
            self.stream_all()
        for b in world.brokers.values():
            if b.partition is not None and b.partition.leading:
                world.step(b, ev.Sleep())
        if self.random.random() < 0.7:
            self.stream_all()
        if self.random.random() < 0.4:
            self.restart_one()

    def restart_one(self) -> None:
        """A broker's process ends and comes back, a controller settles both, and is asked what the rest asks for."""
        world, b = self.world, self.any_broker()
        world.kill(b.id)
        for _ in range(2):
            controller = self.controller()
            controller.read()
            world.decide(controller, outcome_known=True)
            self.hear()
            if not b.alive:
                world.start(b.id)
        for broker in world.brokers.values():
            self.hear()
            world.join_asleep(broker)

    def join_asleep(self) -> None:
        self.world.join_asleep(self.leader())

    def housekeep(self) -> None:
        world, b = self.world, self.any_broker()
        partition = b.partition
        chance = self.random.random()
        if chance < 0.4 and partition is not None:
            b.disk.checkpoint = partition.log.high_watermark
        elif chance < 0.7:
            b.disk.flushed = b.disk.end
        elif chance < 0.85 and partition is not None and partition.leading:
            world.step(b, ev.Sleep())
        elif chance < 0.87 and partition is not None:
            world.close(b)
        else:
            world.delete_records(b)

    # faults

    def fault(self) -> None:
        actions, weights = self.faults
        self.random.choices(actions, cum_weights=weights)[0]()
        self.world.count("faults")

    def kill(self) -> None:
        self.world.kill(self.any_broker().id)

    def power_off(self) -> None:
        self.world.power_off(self.any_broker().id)

    def replace_disk(self) -> None:
        self.world.replace_disk(self.any_broker().id)

    def kill_replica(self) -> None:
        """The broker sees its child's end-of-file, and reports a leader's; the report may be lost."""
        b = self.any_broker()
        if b.partition is not None:
            if b.partition.leading and self.random.random() < 0.7:
                self.world.failures.append((b.id, b.partition.epoch))
            self.world.kill_process(b)

    def cut(self) -> None:
        if self.world.channels:
            self.random.choice(self.world.channels).broken = True

    def expire(self) -> None:
        """A session ends while its broker lives on, and does not know yet."""
        self.world.register.ids.pop(self.any_broker().id, None)

    def notice(self) -> None:
        """A broker reads that its registration is gone, and ends (rule 15)."""
        b = self.any_broker()
        if b.alive and self.world.register.ids.get(b.id, (-1,))[0] != b.epoch:
            self.world.kill(b.id)

    def new_controller(self) -> None:
        self.world.controllers.append(Controller(self.world.register, self.world.unclean))

    # the quiet time

    def quiet(self) -> None:
        """No more faults: brokers come back, one controller decides, every frame arrives. All must come right."""
        world = self.world
        world.faults = False
        world.controllers = [Controller(world.register, world.unclean)]
        world.controls.clear()
        world.proposals.clear()
        acked = -1
        for _ in range(_QUIET_ROUNDS):
            self.settle()
            if self.is_in_sync():
                if acked >= 0 and len(world.acked) > acked:
                    leader = world.brokers[world.register.state.leader]
                    if not world.unclean:
                        world.check_holds(leader)
                    return
                acked = len(world.acked)
                world.produce(world.brokers[world.register.state.leader], -1)
            elif self.is_offline_by_rule():
                world.count("offline by rule")
                return
        raise Violation(CONVERGES, f"{world.register.state}")

    def settle(self) -> None:
        world = self.world
        controller = world.controllers[0]
        world.now_ms += 25
        for b in world.brokers.values():
            if b.alive and world.register.ids.get(b.id, (-1,))[0] != b.epoch:
                world.kill(b.id)
            if not b.alive:
                world.start(b.id)
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
        self.stream_all()

    def stream_all(self) -> None:
        """Every frame on its way arrives, and what the leaders have."""
        world = self.world
        for channel in list(world.channels):
            for _ in range(3):
                while channel.to_follower:
                    world.deliver_to_follower(channel)
                while channel.to_leader:
                    world.deliver_to_leader(channel)
                world.push(channel, 1000)
            if channel.broken:
                world.end(channel)

    def is_in_sync(self) -> bool:
        world = self.world
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
            and self.logs_are_equal()
        )

    def logs_are_equal(self) -> bool:
        disks = [b.disk for b in self.world.brokers.values()]
        start = max(disk.start for disk in disks)
        first = disks[0].records[start - disks[0].start :]
        return all(disk.records[start - disk.start :] == first for disk in disks)

    def is_offline_by_rule(self) -> bool:
        """The last in-sync replica lost its page cache or its disk, and nobody asked for an unclean election (rule
        18)."""
        world = self.world
        state = world.register.state
        return state.leader < 0 and not world.unclean and set(state.isr) <= world.register.tainted.keys()
