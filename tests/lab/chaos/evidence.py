"""What a run leaves behind, gathered in one folder: the clients' history, the faults, every replica's files, and
ZooKeeper's transaction log. ``scripts/chaos --check FOLDER`` judges such a folder again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import TopicPartition

from tests.lab.chaos import checker, elections, history, stored
from tests.lab.chaos.checker import Partition, Verdict, Violation
from tests.lab.chaos.history import Fault
from tests.lab.chaos.system import System
from tests.lab.zookeeper_history import changes

HISTORY = "history.jsonl"
FAULTS = "faults.jsonl"
ABOUT = "about.json"
LOAD_LOG = "load.log"


def gather(
    folder: Path,
    system: System,
    zookeepers: Sequence[Path],
    topic: str,
    ends: Mapping[TopicPartition, int],
    faults: Sequence[Fault],
) -> None:
    """Copy what the verdict needs into ``folder``; ``zookeepers`` hold the transaction logs of the servers."""
    for name in (HISTORY, LOAD_LOG):
        shutil.copy(system.folder / name, folder)
    (folder / FAULTS).write_text(history.write(faults))
    about = {
        "topic": topic,
        "chroot": system.chroot,
        "ends": [[place.topic, place.partition, end] for place, end in ends.items()],
        "brokers": list(system.brokers),
        "zookeepers": len(zookeepers),
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1))
    for broker in system.brokers:
        for place in ends:
            directory = system.data(broker) / f"{place.topic}-{place.partition}"
            to = folder / f"broker-{broker}" / directory.name
            if directory.is_dir():
                shutil.copytree(directory, to, ignore=shutil.ignore_patterns(".lock"), dirs_exist_ok=True)
    for number, data in enumerate(zookeepers):
        shutil.copytree(data / "version-2", folder / f"zookeeper-{number}" / "version-2", dirs_exist_ok=True)


def judge(folder: Path) -> Verdict:
    """The verdict on what ``gather`` left in ``folder``."""
    about = json.loads((folder / ABOUT).read_text())
    topic = about["topic"]
    zookeepers = [folder / f"zookeeper-{number}" for number in range(about["zookeepers"])]
    led = elections.led(changes(zookeepers), about["chroot"], topic)
    partitions: dict[int, Partition] = {}
    elsewhere: list[str] = []
    for name, number, end in about["ends"]:
        places = {b: folder / f"broker-{b}" / f"{name}-{number}" for b in about["brokers"]}
        places = {b: path for b, path in places.items() if path.is_dir()}
        if not places:  # nothing was ever written there
            elsewhere += [f"{name}-{number}: no replica has files, and it ends at {end}"] * bool(end)
            continue
        differences = stored.differences(places, end)
        if name != topic:
            elsewhere += differences
            continue
        first = places[min(places)]
        starts = elections.elections(led.get(number, ()), stored.epochs(first), end)
        partitions[number] = Partition(stored.records(first, end), starts, differences)
    events = [*history.read(folder / HISTORY), *history.read(folder / FAULTS)]
    verdict = checker.check(events, partitions)
    verdict.violations[Violation.DIVERGED] += elsewhere
    return verdict
