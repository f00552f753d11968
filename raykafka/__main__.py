"""``python -m raykafka``: the `raykafka` command."""

from raykafka.cli import main

main()
