"""Command line of the Kafka beside ours: fetch Apache Kafka's jars, run its tools, start and stop a cluster of it."""

import sys

from tests.lab.peer.kafka import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
