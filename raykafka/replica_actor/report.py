"""What a replica actor reports to its broker each second: how far replicas are, what clients did, how busy it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from raykafka.front.listener import Listener
from raykafka.process.clock import boot_clock, boot_clock_ms
from raykafka.replica_actor.hosting import Hosting
from raykafka.telemetry.durations import RequestDurations
from raykafka.telemetry.traffic import Traffic

EVERY_S = 1.0


class Report:
    """Tells only what has changed since the last one."""

    def __init__(
        self,
        hosting: Hosting,
        traffic: Traffic,
        durations: RequestDurations,
        listeners: Mapping[str, Listener],
        taken: Callable[[], int],
    ) -> None:
        """``taken`` tells how many clients' connections were handed over so far."""
        self._hosting = hosting
        self._traffic = traffic
        self._durations = durations
        self._listeners = listeners
        self._taken = taken
        self._at_s = boot_clock()
        self._used_s = time.process_time()

    def next(self) -> dict[str, Any]:
        """The report of the time since the last one."""
        now_s, used_s = boot_clock(), time.process_time()
        busy = (used_s - self._used_s) / max(now_s - self._at_s, 1e-3)
        self._at_s, self._used_s = now_s, used_s
        return {
            "partitions": self._partitions(),
            "traffic": self._traffic.delta(),
            "durations": self._durations.delta(),
            "connections": {name: listener.connections for name, listener in self._listeners.items()},
            "taken": self._taken(),
            "busy": round(busy, 3),
        }

    def _partitions(self) -> list[list[Any]]:
        now_ms, rows = boot_clock_ms(), []
        for hosted in self._hosting.take_changed():
            view, replica = hosted.view, hosted.replica
            if view is None:
                continue
            followers = replica.describe_followers(now_ms) if replica.partition.leading is not None else None
            rows.append(
                [
                    hosted.key.topic,
                    hosted.key.partition,
                    view.leader_epoch,
                    view.log_start_offset,
                    view.high_watermark,
                    view.log_end_offset,
                    replica.log.recovery_point,
                    followers or None,
                ]
            )
            if followers and not all(map(_is_settled, followers.values())):
                self._hosting.changed(hosted)  # it is told again, as time passes
        return rows


def _is_settled(follower: Mapping[str, Any]) -> bool:
    return bool(follower["live"]) and follower["lag_records"] == 0
