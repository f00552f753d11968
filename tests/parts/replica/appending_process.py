"""A process that leads a partition and appends to it until it is killed: ``python -m
tests.parts.replica.appending_process FOLDER EPOCH ACKS``. It writes "OFFSET VALUE" for each append that was answered.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from raykafka.partition.appends import Appended, Done
from tests.parts.replica.opened import BROKER, Broker, batch, state


async def append(folder: Path, epoch: int, acks: int) -> None:
    broker = await Broker(BROKER, folder).start()
    replica = broker.actors[0].on()
    await replica.open(state(epoch))
    assert replica.leads

    def sayer(value: bytes) -> Done:
        def say(appended: Appended) -> None:
            assert not appended.error
            sys.stdout.write(f"{appended.base_offset} {value.decode()}\n")
            sys.stdout.flush()

        return say

    for n in range(100_000):
        value = b"%d-%d-" % (epoch, n) + b"x" * random.randrange(3000)
        replica.replica.append(memoryview(batch(value)), acks, 60_000, -1, sayer(value))
        if n % 20 == 0:
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(append(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
