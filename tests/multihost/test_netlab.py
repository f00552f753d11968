"""The simulated hosts themselves: what is apart, what a fault does, and that nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts.netlab import Host, Lab

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(3, visible=[Path(sys.prefix)]) as lab:
        yield lab


def _reaches(here: Host, there: Host) -> bool:
    connect = f"exec 3<>/dev/tcp/{there.address}/22 && echo reached"
    return "reached" in here.run("timeout", "2", "bash", "-c", connect, check=False)


def test_hosts_have_names_processes_and_files_of_their_own(lab: Lab) -> None:
    first, second, _ = lab.hosts
    assert first.run("ssh", second.name, "hostname; pwd").split() == [second.name, str(second.home)]
    name = f"of-{lab.bridge}-{os.getpid()}"
    for folder in ("/tmp", "/srv", "/dev/shm"):
        first.run("touch", f"{folder}/{name}")
        assert name not in second.run("ls", folder)
        assert not Path(folder, name).exists()
    assert len(second.processes()) < 6


def test_a_cut_link_carries_nothing_until_it_is_healed(lab: Lab) -> None:
    first, second, third = lab.hosts
    second.cut()
    assert not _reaches(first, second)
    assert _reaches(first, third)
    second.heal()
    assert _reaches(first, second)


def test_loss_one_way_concerns_one_pair_only(lab: Lab) -> None:
    first, second, third = lab.hosts
    second.lose_to(first)
    assert not _reaches(first, second)  # the answers are lost
    assert _reaches(third, second)
    assert _reaches(second, third)
    second.lose_nothing_to(first)
    assert _reaches(first, second)


def test_a_powered_off_host_is_silent_and_boots_anew_with_its_files(lab: Lab) -> None:
    first, second, _ = lab.hosts
    listen = "import socket,time; s=socket.create_server(('', 700)); c=s.accept()[0]; c.send(b'hello'); time.sleep(60)"
    server = subprocess.Popen(second.command([sys.executable, "-c", listen]))
    client = textwrap.dedent(
        f"""
        import socket, time
        while True:
            try:
                s = socket.create_connection(("{second.address}", 700), 1)
                break
            except OSError:
                time.sleep(0.05)
        print(s.recv(5).decode(), flush=True)
        s.settimeout(2)
        try:
            print(s.recv(5) or "it was closed", flush=True)
        except TimeoutError:
            print("silence", flush=True)
        """
    )
    peer = subprocess.Popen(first.command([sys.executable, "-c", client]), stdout=subprocess.PIPE, text=True)
    assert peer.stdout is not None
    assert peer.stdout.readline() == "hello\n"
    second.run("touch", "/srv/kept", "/dev/shm/lost")
    boot_id = second.run("cat", _BOOT_ID)
    second.power_off()
    assert server.wait(10) != 0
    assert peer.stdout.readline() == "silence\n"
    peer.wait(10)
    second.power_on()
    assert _reaches(first, second)
    assert second.run("ls", "/srv", "/dev/shm").count("kept") == 1
    assert "lost" not in second.run("ls", "/dev/shm")
    assert len({boot_id, second.run("cat", _BOOT_ID), first.run("cat", _BOOT_ID), Path(_BOOT_ID).read_text()}) == 4


def test_what_is_to_be_visible_is_seen_in_tmp_too(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("here")
    with Lab(1, visible=[tmp_path]) as lab:
        assert lab.hosts[0].run("cat", str(tmp_path / "code")) == "here"
    assert (tmp_path / "code").read_text() == "here"


def test_a_lab_whose_maker_is_killed_goes_with_it() -> None:
    """Hosts end at once; what is left of the lab, its bridge, goes when the next one takes its number."""
    make = """
        from tests.lab.hosts.netlab import Lab
        with Lab(1) as lab:
            print(lab.bridge, lab.hosts[0]._pid, flush=True)
            import time
            time.sleep(60)
        """
    maker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(make)], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    bridge, pid = maker.stdout.readline().split()
    maker.kill()
    maker.wait(10)
    subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=10, check=True)
    with Lab(1) as next_lab:
        assert next_lab.bridge == bridge
        assert len(next_lab.hosts[0].processes()) < 6
    assert not Path(f"/sys/class/net/{bridge}").exists()
