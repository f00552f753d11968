"""Looks at the machines anew, and writes docs/state-machines.md and docs/diagrams."""

from __future__ import annotations

import argparse

from tests.unit.diagrams import drawn, witnesses
from tests.unit.diagrams.seen import MACHINES


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/diagrams", description=__doc__)
    parser.add_argument("--draw", action="store_true", help="draw what was seen before")
    if not parser.parse_args().draw:
        seeds = range(witnesses.SEEDS)
        witnesses.write({machine.name: witnesses.search(machine, seeds) for machine in MACHINES})
    found = witnesses.read()
    for path, text in drawn.files((machine, set(found[machine.name])) for machine in MACHINES).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path.relative_to(drawn.DOCS.parent))


if __name__ == "__main__":
    main()
