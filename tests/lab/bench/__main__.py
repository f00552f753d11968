"""raykafka against Apache Kafka: one system at a time, in turns, with the same clients."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.bench.measured import Results, Sample
from tests.lab.bench.memory import MOST_TOUCHED_GB, touch
from tests.lab.bench.plot import svg
from tests.lab.bench.report import by_role, errors, machine, table
from tests.lab.bench.rows import Row, rows
from tests.lab.bench.systems import NAMES, SYSTEMS
from tests.lab.bench.turn import FAILURES, say, turn

QUICK_SCALE = 0.1
PARTITIONS = (1, 6, 30)
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
    systems = options.system or list(SYSTEMS)
    results: Results = {row.title: {NAMES[name]: [] for name in systems} for row in chosen}
    began = time.monotonic()
    if options.touch > 0:
        say(f"touched {touch(options.touch) / 1e9:.1f} GB of memory in {time.monotonic() - began:.0f} s")
    try:
        for number in range(1, rounds + 1):
            for name in systems:
                say(f"round {number} of {rounds}: {NAMES[name]}")
                take_turn(name, chosen, options, scale, results)
    finally:
        write_up(options, chosen, results, (time.monotonic() - began) / 60)
    return 1 if errors(results) else 0


def take_turn(name: str, chosen: list[Row], options: argparse.Namespace, scale: float, results: Results) -> None:
    """Adds a sample to each row of that system; one with the error for each row that a broken system did not reach."""
    left = {row.title for row in chosen}
    try:
        for row, sample in turn(name, chosen, options.replication, scale):
            results[row.title][NAMES[name]].append(sample)
            left.discard(row.title)
    except FAILURES as error:
        for title in left:
            results[title][NAMES[name]].append(Sample(error=f"the system did not work: {error}"))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one round with a tenth of the records: a try, not a result"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"how often each system has its turn (default {ROUNDS})"
    )
    parser.add_argument(
        "--partitions",
        type=partition_counts,
        default=list(PARTITIONS),
        metavar="N[,N...]",
        help=f"the topics' numbers of partitions (default {','.join(map(str, PARTITIONS))})",
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
        "--system", action="append", choices=list(SYSTEMS), help="only this system; may be repeated (default all)"
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
    return parser.parse_args(arguments)


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
