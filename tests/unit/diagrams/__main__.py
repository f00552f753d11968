"""Looks at the machines anew, and writes docs/state-machines.md and docs/diagrams."""

from __future__ import annotations

from tests.unit.diagrams import drawn, witnesses
from tests.unit.diagrams.seen import MACHINES


def main() -> None:
    found = {machine.name: witnesses.search(machine, range(witnesses.SEEDS)) for machine in MACHINES}
    witnesses.write(found)
    for path, text in drawn.files((machine, set(found[machine.name])) for machine in MACHINES).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path.relative_to(drawn.DOCS.parent))


if __name__ == "__main__":
    main()
