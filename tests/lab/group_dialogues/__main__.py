"""Records the dialogues anew from a Kafka."""

import asyncio
import sys

from tests.lab.group_dialogues.recorded import record

if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], sys.argv[2:]))
