"""Hosts that are simulated on this machine: each has a network, processes, a name, a home and an SSH server of its own.

A host is a process tree in its own pid, mount, uts, ipc and network namespaces, on a bridge that all hosts of a lab
share. They share this machine's files, apart from what a second machine would have for itself: /tmp, /dev/shm, /srv,
/etc/hosts, root's home and the boot's id, a new one each time that the host is powered on. So one virtual environment
serves all hosts, and a Ray on one does not see another's.

What is made needs no cleaning by hand: the kernel ends a host with the process that made it, and its namespaces, mounts
and link with the host. A bridge and a folder that a killed run left behind go when the next lab takes their number.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PLACE = Path("/var/tmp/raykafka-netlab")  # not in /tmp, of which each host has its own
_LABS = range(1, 200)
_TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "sshd": "openssh-server"} | {
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
}
_UP_WITHIN_S = 30.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_NOBODY = "02:00:de:ad:00:00"  # a hardware address that no host has
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SSH_OPTIONS = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "IdentitiesOnly": "yes",
}


class LabError(Exception):
    """The lab can't do what was asked."""


def unavailable() -> str | None:
    """Why this machine can't simulate hosts, as the reason of a skipped test; None when it can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=_PATH) is None:
            return f"needs {tool} (Debian: apt install {package})"
    probe = subprocess.run(["unshare", "-n", "-m", "-p", "-f", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        return f"needs network namespaces, and this machine refuses them: {probe.stderr.strip()}"
    return None


class Lab:
    """``count`` hosts, named h0, h1 and so on, at 10.213.N.10 and up. N is free on this machine when the lab is made.

    ``visible`` names folders that hosts are to see even where they are in /tmp, such as the code under test. A context
    manager: the hosts start with it and end with it.
    """

    def __init__(self, count: int, visible: Sequence[Path] = ()) -> None:
        self._lock = -1
        self._number = self._take_number()
        self.folder = _PLACE / str(self._number)
        self.bridge = f"rkn{self._number}"
        self.gateway = f"10.213.{self._number}.1"
        self.key = self.folder / "key"
        self.visible = [path.resolve() for path in visible if path.resolve().is_relative_to("/tmp")]
        self.hosts = [Host(self, index) for index in range(count)]

    def __enter__(self) -> Lab:
        try:
            self._clear()
            self.folder.mkdir(parents=True)
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "netlab", "-f", str(self.key))
            _run("ip", "link", "add", self.bridge, "type", "bridge")
            _run("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
            _run("ip", "link", "set", self.bridge, "up")
            for host in self.hosts:
                host.power_on(wait=False)
            for host in self.hosts:
                host.await_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts and remove what the lab made."""
        for host in self.hosts:
            host.power_off()
        self._clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_number(self) -> int:
        """A number that no living process uses: each lab holds the lock of its own until it ends."""
        locks = _PLACE / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        for number in _LABS:
            lock = os.open(locks / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = lock
                return number
            os.close(lock)
        raise LabError(f"{len(_LABS)} labs run on this machine already")

    def _clear(self) -> None:
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Host:
    """One host of a lab; ``lab.hosts`` has them all. It is down until ``power_on``."""

    def __init__(self, lab: Lab, index: int) -> None:
        self.lab = lab
        self.index = index
        self.name = f"h{index}"
        self.address = f"10.213.{lab._number}.{10 + index}"
        self.folder = lab.folder / self.name
        self._hardware_address = f"02:00:0a:d5:{lab._number:02x}:{10 + index:02x}"
        self._link = f"{lab.bridge}h{index}"
        self._init: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def srv(self) -> Path:
        """What the host sees as /srv. It survives a power cut, and so do ``home`` and ``tmp``."""
        return self.folder / "srv"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def up(self) -> bool:
        return self._init is not None and self._init.poll() is None

    def power_on(self, wait: bool = True) -> None:
        """Boot: nothing but the SSH server runs, /dev/shm is empty, files are as they were."""
        if self.up:
            return
        self._prepare()
        started = self.folder / "started"
        started.unlink(missing_ok=True)
        command = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        with (self.folder / "boot.log").open("ab") as log:
            self._init = subprocess.Popen(
                [*command, "/bin/bash", str(self.folder / "boot")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": _PATH, "LANG": "C.UTF-8", "HOME": str(self.home), "USER": "root"},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._await(started.exists, "boot")
        self._pid = int(started.read_text())
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        _run("ip", "link", "set", self._link, "master", self.lab.bridge, "up")
        for step in (
            "link set lo up",
            f"link set eth0 address {self._hardware_address}",
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.lab.gateway}",
        ):
            self._ip(*step.split())
        (self.folder / "linked").touch()
        if wait:
            self.await_up()

    def await_up(self) -> None:
        """Wait until the host's SSH server answers."""
        self._await(lambda: _accepts(self.address, 22), "answer on its SSH port")

    def power_off(self) -> None:
        """As if the cord were pulled: everything ends at once, and nobody at another end hears of it."""
        if self._init is None:
            return
        with suppress(LabError):  # the link is gone when the host has died by itself
            self.cut()
        # The end of a pid namespace's first process is the end of all its processes. ``unshare`` outside waits for it.
        with suppress(ProcessLookupError):
            os.kill(self._pid or self._init.pid, signal.SIGKILL)
        self._init.wait(60)
        self._init, self._pid = None, 0
        deadline = time.monotonic() + _UP_WITHIN_S
        while Path(f"/sys/class/net/{self._link}").exists():  # it goes with the network namespace, a moment later
            subprocess.run(["ip", "link", "del", self._link], capture_output=True)
            if time.monotonic() > deadline:
                raise LabError(f"the link of {self.name} does not go away")
            time.sleep(_POLL_S)

    def cut(self) -> None:
        """Take the cable out: nothing comes or goes."""
        _run("ip", "link", "set", self._link, "down")

    def heal(self) -> None:
        _run("ip", "link", "set", self._link, "up")

    def lose_to(self, other: Host) -> None:
        """Lose every packet from this host to ``other``; those the other way arrive. Neither is told."""
        self._ip("neigh", "replace", other.address, "lladdr", _NOBODY, "nud", "permanent", "dev", "eth0")

    def lose_nothing_to(self, other: Host) -> None:
        self._ip("neigh", "del", other.address, "dev", "eth0")

    def command(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """The command that runs ``words`` on this host, not through SSH."""
        if not self.up:
            raise LabError(f"{self.name} is down")
        settings = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": str(self.home), "USER": "root", "SHELL": "/bin/bash"}
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
        inside.append(f"--wdns={self.home}")
        settings |= environment or {}
        return [*inside, "env", "-i", *(f"{name}={value}" for name, value in settings.items()), *words]

    def run(
        self, *words: str, environment: Mapping[str, str] | None = None, within_s: float = 60.0, check: bool = True
    ) -> str:
        """Run a command there; what it wrote. Raises LabError with that when it fails and ``check`` is true."""
        done = subprocess.run(
            self.command(words, environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
        )
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {shlex.join(words)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def processes(self) -> list[str]:
        """The command lines of everything that runs there."""
        return self.run("ps", "-eo", "args", "--no-headers").splitlines()

    def _ip(self, *words: str) -> None:
        _run("nsenter", "--target", str(self._pid), "--net", "ip", *words)

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _UP_WITHIN_S
        while not condition():
            if not self.up or time.monotonic() > deadline:
                log = (self.folder / "boot.log").read_text(errors="replace")
                raise LabError(f"{self.name} does not {what}:\n{log[-2000:]}")
            time.sleep(_POLL_S)

    def _prepare(self) -> None:
        ssh = self.home / ".ssh"
        for folder in (self.home, ssh, self.tmp, self.srv, self.folder / "etc"):
            folder.mkdir(parents=True, exist_ok=True)
        self.tmp.chmod(0o1777)
        ssh.chmod(0o700)
        key = self.lab.key
        shutil.copy(key.with_suffix(".pub"), ssh / "authorized_keys")
        shutil.copy(key, ssh / "id_ed25519")
        (ssh / "config").write_text("Host *\n" + "".join(f"  {k} {v}\n" for k, v in _SSH_OPTIONS.items()))
        for file in ("authorized_keys", "id_ed25519", "config"):
            (ssh / file).chmod(0o600)
        profile = self.home / ".profile"
        if not profile.exists():
            profile.write_text("[ -f ~/.bashrc ] && . ~/.bashrc\n")
            (self.home / ".bashrc").touch()
        etc = self.folder / "etc"
        names = [("127.0.0.1", "localhost"), *((host.address, host.name) for host in self.lab.hosts)]
        (etc / "hosts").write_text("".join(f"{address} {name}\n" for address, name in names))
        (etc / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self._write_accounts(etc)
        if not (etc / "host_key").exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(etc / "host_key"))
        (etc / "sshd_config").write_text(self._sshd_config())
        (self.folder / "linked").unlink(missing_ok=True)
        (self.folder / "boot").write_text(self._boot())

    def _write_accounts(self, etc: Path) -> None:
        """Root lives in the host's own home, and is not locked: a server without PAM refuses a locked account."""
        lines = []
        for line in Path("/etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == "root":
                fields[5:7] = [str(self.home), "/bin/bash"]
            lines.append(":".join(fields))
        (etc / "passwd").write_text("\n".join(lines) + "\n")
        shadow = etc / "shadow"
        shadow.touch(0o600)
        shadow.write_text("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n")

    def _sshd_config(self) -> str:
        etc = self.folder / "etc"
        return textwrap.dedent(
            f"""\
            ListenAddress {self.address}
            HostKey {etc}/host_key
            AuthorizedKeysFile {self.home}/.ssh/authorized_keys
            AuthenticationMethods publickey
            PermitRootLogin prohibit-password
            UsePAM no
            UseDNS no
            StrictModes no
            MaxStartups 100
            MaxSessions 100
            PidFile none
            PrintMotd no
            Subsystem sftp internal-sftp
            """
        )

    def _boot(self) -> str:
        """What the host's first process does. /proc is this machine's until it mounts its own, so it can tell its pid
        there. It stays, since bash reaps what is left to it."""
        etc, folder = self.folder / "etc", self.folder
        here = [(path, self.tmp / path.relative_to("/tmp")) for path in self.lab.visible]
        show = "; ".join(f"mkdir -p {to}; mount --bind {path} {to}" for path, to in here) or ":"
        return textwrap.dedent(
            f"""\
            set -e
            read -r pid _ </proc/self/stat
            hostname {self.name}
            for file in hosts passwd shadow; do mount --bind {etc}/$file /etc/$file; done
            mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
            mount --bind {self.srv} /srv
            mkdir -p /run/sshd
            {show}
            mount --rbind {self.tmp} /tmp
            mount -t proc proc /proc
            mount --bind {etc}/boot_id /proc/sys/kernel/random/boot_id
            echo $pid >{folder}/started.new
            mv {folder}/started.new {folder}/started
            until [ -e {folder}/linked ]; do sleep 0.05; done
            cd {self.home}
            /usr/sbin/sshd -f {etc}/sshd_config -E {folder}/sshd.log
            set +e
            while :; do sleep infinity & wait $!; done
            """
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{shlex.join(words)}: {done.stderr.strip()}")


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
