"""A client on one host that talks to that host's broker alone: what does a leader answer that nobody else can reach?

    python -m tests.lab.hosts.islander HOST:PORT TOPIC PARTITION FOLDER

It sends a record with acks=1 and one with acks=all, again and again, each on its own connection, until FOLDER/enough
exists. FOLDER/answers has a line for each: acks, value, error code, offset, when it was sent and answered.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from tests.lab.wire import WireConnection, produce_request, record_batch

_ANSWER_WITHIN_MS = 1000
_PAUSE_S = 0.1


def ask(address: str, topic: str, partition: int, acks: int, enough: Path, answers: TextIO) -> None:
    with WireConnection(address) as wire:
        number = 0
        while not enough.exists():
            value = f"{acks}/{number}"
            number += 1
            batch = record_batch([value.encode()])
            request = produce_request(topic, batch, acks=acks, partition=partition, timeout_ms=_ANSWER_WITHIN_MS)
            sent = time.time()
            row = {"acks": acks, "value": value, "sent": sent}
            try:
                answer = wire.call(request).responses[0].partition_responses[0]
                row |= {"error": answer.error_code.name, "offset": answer.base_offset}
            except OSError as error:
                row["closed"] = str(error)
            print(json.dumps(row | {"at": time.time()}), file=answers, flush=True)
            if "closed" in row:
                return
            time.sleep(_PAUSE_S)


def main(address: str, topic: str, partition: int, folder: Path) -> None:
    with (folder / "answers").open("w") as answers:
        askers = [
            threading.Thread(target=ask, args=(address, topic, partition, acks, folder / "enough", answers))
            for acks in (1, -1)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
