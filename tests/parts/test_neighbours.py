"""Brokers see one another die before the controller has said so."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.broker.neighbourhood.neighbours import SUSPECT_AFTER_S, Neighbours
from raykafka.cluster.image import BrokerInfo
from tests.lab.loop_waiting import until

SECRET = b"s" * 32
WITHIN_S = 30.0


async def _port(epoch: int, port: int = 0) -> tuple[InterBrokerPort, BrokerInfo]:
    """Broker 1's inter-broker port, in a life of that epoch."""
    links = InterBrokerPort(SECRET, {})
    opened = links.open("127.0.0.1", port)
    await links.serve("cluster", 1, epoch)
    return links, BrokerInfo(1, epoch, (), "127.0.0.1", opened, "d", "b", True)


async def _other_process() -> tuple[subprocess.Popen[str], BrokerInfo]:
    """``_port`` of epoch 1 in a process of its own."""
    program = (
        "import asyncio\n"
        "from tests.parts.test_neighbours import _port\n"
        "async def main():\n"
        "    links, info = await _port(1)\n"
        "    print(info.link_port, flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    broker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert broker.stdout is not None
    port = int(await asyncio.to_thread(broker.stdout.readline))
    return broker, BrokerInfo(1, 1, (), "127.0.0.1", port, "d", "b", True)


def test_a_broker_whose_socket_ends_is_suspected_until_it_is_replaced() -> None:
    async def scenario() -> None:
        links, info = await _port(1)
        neighbours = Neighbours(0, SECRET)
        neighbours.apply({1: info, 0: info})
        await until(lambda: bool(links.connections))
        assert not neighbours.suspects
        links.stop()
        await until(lambda: neighbours.suspects == {1})
        # another life on the same port is no life of that one
        again, successor = await _port(2, info.link_port)
        await asyncio.sleep(0.3)
        assert neighbours.suspects == {1}
        neighbours.apply({1: successor})
        await until(lambda: bool(again.connections) and not neighbours.suspects)
        again.stop()
        await neighbours.stop()

    asyncio.run(scenario())


def test_an_end_is_known_before_the_event_loop_gets_to_it() -> None:
    """The client that asks has seen it already."""

    async def scenario() -> None:
        broker, info = await _other_process()
        neighbours = Neighbours(0, SECRET)
        neighbours.apply({1: info})
        await until(lambda: neighbours.watched == {1})
        assert not neighbours.suspects
        broker.kill()
        broker.wait()  # the event loop has no turn between this and the question
        assert neighbours.suspects == {1}
        await neighbours.stop()

    asyncio.run(scenario())


def test_a_broker_that_gives_no_sign_of_itself_is_suspected_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        broker, info = await _other_process()
        neighbours = Neighbours(0, SECRET)
        neighbours.apply({1: info})
        await until(lambda: neighbours.watched == {1})
        broker.send_signal(signal.SIGSTOP)
        await until(lambda: neighbours.suspects == {1})
        # its socket is open, and so is the next one: the kernel takes connections for it
        epoch, silent_s = neighbours.silences[1]
        assert (epoch, silent_s > SUSPECT_AFTER_S) == (1, True)
        await until(lambda: neighbours.silences[1][1] > silent_s + 1)
        broker.send_signal(signal.SIGCONT)
        await until(lambda: not neighbours.suspects and neighbours.watched == {1})
        assert neighbours.silences[1][1] < SUSPECT_AFTER_S
        broker.kill()
        broker.wait()
        await neighbours.stop()
        assert neighbours.silences == {}

    asyncio.run(scenario())
    assert "has cut its connection" not in caplog.text


def test_a_cut_connection_to_a_living_broker_is_opened_again() -> None:
    async def scenario() -> None:
        links, info = await _port(1)
        neighbours = Neighbours(0, SECRET)
        neighbours.apply({1: info})
        await until(lambda: bool(links.connections))
        (cut,) = links.connections
        cut.close()
        await until(lambda: bool(links.connections - {cut}) and not neighbours.suspects)
        links.stop()
        await neighbours.stop()

    asyncio.run(scenario())
