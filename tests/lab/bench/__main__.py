"""raykafka against Apache Kafka: the same clients do each row to one system after the other, while the others idle."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.bench.measured import Results
from tests.lab.bench.memory import MOST_TOUCHED_GB, touch
from tests.lab.bench.plot import svg
from tests.lab.bench.race import Race, say
from tests.lab.bench.report import by_role, errors, machine, table
from tests.lab.bench.rows import Row, rows
from tests.lab.bench.systems import SYSTEMS, systems
from tests.lab.clusters.actors import AUTO, actors

QUICK_SCALE = 0.1
PARTITIONS = {1: [1, 4, 30], 3: [1, 6, 30, 300]}  # by replication factor
ROUNDS = 3


def main() -> int:
    options = parse(sys.argv[1:])
    scale = QUICK_SCALE if options.quick else 1.0
    every = rows(options.replication, options.partitions, scale)
    chosen = [row for row in every if not options.only or any(text in row.title for text in options.only)]
    if not chosen:
        print(f"no row's title holds {' or '.join(map(repr, options.only))}:", file=sys.stderr)
        print("\n".join(f"  {row.title}" for row in every), file=sys.stderr)
        return 2
    rounds = 1 if options.quick else options.rounds
    racing = systems(options.system or SYSTEMS, options.actors)
    results: Results = {row.title: {name: [] for name in racing} for row in chosen}
    began = time.monotonic()
    if options.touch > 0:
        say(f"touched {touch(options.touch) / 1e9:.1f} GB of memory in {time.monotonic() - began:.0f} s")
    try:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: {', '.join(racing)}")
            with Race(racing, options.replication, scale) as race:
                for row, name, sample in race.run(chosen, number):
                    results[row.title][name].append(sample)
    finally:
        write_up(options, chosen, results, (time.monotonic() - began) / 60)
    return 1 if errors(results) else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one round with a tenth of the records: a try, not a result"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        help=f"how often all systems are started and every row done (default {ROUNDS})",
    )
    parser.add_argument(
        "--partitions",
        type=partition_counts,
        metavar="N[,N...]",
        help="the topics' numbers of partitions (default "
        + ", ".join(f"{','.join(map(str, counts))} with replication factor {n}" for n, counts in PARTITIONS.items())
        + ")",
    )
    parser.add_argument(
        "--replication",
        type=int,
        choices=(1, 3),
        default=1,
        help="replication factor, and number of brokers (default 1)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="only rows whose title holds it; may be repeated"
    )
    parser.add_argument(
        "--system", action="append", choices=SYSTEMS, help="only this system; may be repeated (default all)"
    )
    parser.add_argument(
        "--actors",
        type=lambda text: [actors(word) for word in text.split(",")],
        default=[AUTO],
        metavar="auto|N|each[,...]",
        help="replica.actors of raykafka's brokers; one raykafka for each of several (default auto)",
    )
    parser.add_argument(
        "--touch",
        type=float,
        default=MOST_TOUCHED_GB,
        metavar="GB",
        help=f"how much of the available memory to write to before the first row at most; 0 is none "
        f"(default {MOST_TOUCHED_GB:g})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw the samples")
    options = parser.parse_args(arguments)
    options.partitions = options.partitions or PARTITIONS[options.replication]
    return options


def partition_counts(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers of partitions, such as 1,6,30")
    return sorted({int(word) for word in words})


def write_up(options: argparse.Namespace, chosen: list[Row], results: Results, minutes: float) -> None:
    names = list(results[chosen[0].title])
    rounds = max(len(samples) for samples in results[chosen[0].title].values())
    print(f"\nReplication factor {options.replication}, {rounds} round(s), {minutes:.0f} minutes.")
    print(f"{machine()}.\n")
    print(table(chosen, results, names))
    print("\nMedian CPU seconds, by role:\n")
    print(by_role(chosen, results, names, lambda sample: sample.cpu_s))
    print("Median private memory in MB, by role:\n")
    print(by_role(chosen, results, names, lambda sample: sample.private_mb))
    for line in errors(results):
        print(f"FAILED: {line}")
    if options.json:
        options.json.write_text(json.dumps(as_json(options.replication, results), indent=1) + "\n")
    if options.plot:
        options.plot.write_text(svg(chosen, results, names))


def as_json(replication: int, results: Results) -> dict[str, object]:
    """Every sample, by row and system, in order of the rounds."""
    samples = {
        title: {name: [dataclasses.asdict(sample) for sample in samples] for name, samples in by_system.items()}
        for title, by_system in results.items()
    }
    return {"machine": machine(), "replication": replication, "rows": samples}


if __name__ == "__main__":
    sys.exit(main())
