"""One real ZooKeeper server as a child process, bound to its data directory.

The server outlives the process that started it (an actor may crash; ZooKeeper should not care). Whoever comes next with
the same data directory finds it through two marks: an exclusive flock on ``zookeeper.lock`` that the server inherited
and holds for life, and ``zookeeper.pid``, which holds its pid.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from raykafka.errors import DeployError
from raykafka.process.priority import go_first

JAR_PLACES = (
    "/usr/share/java/zookeeper.jar",
    "/usr/share/zookeeper/zookeeper.jar",
    "/opt/zookeeper/lib/zookeeper.jar",
)
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_POLL_S = 0.02


def find_java() -> str:
    """The ``java`` command: from JAVA_HOME, else from PATH. Raises DeployError when there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and os.access(f"{home}/bin/java", os.X_OK):
        return f"{home}/bin/java"
    java = shutil.which("java")
    if java is None:
        raise DeployError(
            "ZooKeeper needs Java, and no java command was found: install a JRE"
            " (Debian: apt install default-jre-headless) or set JAVA_HOME."
        )
    return java


def find_jar() -> str:
    """ZooKeeper's jar: from RAYKAFKA_ZOOKEEPER_JAR, else where packages put it. Raises DeployError when missing."""
    asked = os.environ.get("RAYKAFKA_ZOOKEEPER_JAR")
    for place in (asked,) if asked else JAR_PLACES:
        if os.path.exists(place):
            return place
    looked = asked or ", ".join(JAR_PLACES)
    raise DeployError(
        f"ZooKeeper is not installed (looked for {looked}): install it (Debian: apt install zookeeper),"
        " or set zookeeper.connect in the cluster file to a server of yours."
    )


def ask(host: str, port: int, word: str = "srvr", timeout_s: float = 1.0) -> str:
    """ZooKeeper's answer to one of its four-letter words; an empty string when nobody answers."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(word.encode())
            connection.settimeout(timeout_s)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
    except OSError:
        return ""
    return b"".join(parts).decode(errors="replace")


class ZooKeeperProcess:
    """A ZooKeeper server on ``host:client_port`` that keeps its data in ``data_dir``.

    ``servers`` maps server ids to ``host:peer_port:election_port`` for an ensemble, in which this one is ``my_id``;
    without it the server stands alone. Session timeouts lie between 2 and 20 ticks; servers of an ensemble that hear
    nothing of each other for ``sync_limit`` ticks part.
    """

    def __init__(
        self,
        data_dir: Path | str,
        client_port: int,
        host: str = "127.0.0.1",
        tick_time_ms: int = 500,
        sync_limit: int = 10,
        heap_mb: int = 128,
        servers: Mapping[int, str] | None = None,
        my_id: int = 1,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.host = host
        self.client_port = client_port
        self.tick_time_ms = tick_time_ms
        self.sync_limit = sync_limit
        self.heap_mb = heap_mb
        self.servers = dict(servers or {})
        self.my_id = my_id
        self.pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def hosts(self) -> str:
        """What a client connects to, as ``host:port``."""
        return f"{self.host}:{self.client_port}"

    @property
    def log_path(self) -> Path:
        return self.data_dir / "zookeeper.log"

    @property
    def _config_path(self) -> Path:
        return self.data_dir / "zoo.cfg"

    @property
    def _pid_path(self) -> Path:
        return self.data_dir / "zookeeper.pid"

    def start(self) -> None:
        """Start the server, or adopt the one that holds the data directory when it runs with these very settings.

        A server that runs there with other settings is stopped first. Raises DeployError when Java or ZooKeeper is
        missing, or when the data directory is held by something that is not our server.
        """
        command = self._command()
        config = f"# {' '.join(command)}\n{self._config()}"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.data_dir / "zookeeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not self._lock(lock):
                if self._adopt() and self._config_path.read_text() == config:
                    return
                self.stop()
                self._await_lock(lock)
            self._pid_path.unlink(missing_ok=True)
            self._config_path.write_text(config)
            if self.servers:
                (self.data_dir / "myid").write_text(f"{self.my_id}\n")
            self._launch(command, lock)
        finally:
            os.close(lock)

    def wait_ready(self, timeout_s: float = 15.0) -> None:
        """Wait until the server answers clients. Raises DeployError when it ends or stays silent for ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not self.serves():
            if not self.alive():
                raise DeployError(f"ZooKeeper on {self.hosts} ended while starting: {self._last_words()}")
            if time.monotonic() > deadline:
                raise DeployError(
                    f"ZooKeeper on {self.hosts} gives no answer for {timeout_s:.0f} s; see {self.log_path}."
                )
            time.sleep(_POLL_S)

    def serves(self) -> bool:
        """Whether this very server answers clients; another one that took its port does not count."""
        return f"dataDir={self.data_dir}{os.sep}" in ask(self.host, self.client_port, "conf")

    def alive(self) -> bool:
        """Whether our server process runs (not whether it answers)."""
        if self._child is not None:
            if self._child.poll() is None:
                return True
            self._child = None
            self.pid = None
        return self.pid is not None and self._is_ours(self.pid)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the server in order; one that does not go in ``timeout_s`` is killed. Nothing to do when none runs."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self._end(signal.SIGKILL, 5.0)

    def _end(self, how: signal.Signals, timeout_s: float) -> None:
        if self.pid is None and not self._adopt():
            return
        deadline = time.monotonic() + timeout_s
        pid = self.pid
        assert pid is not None
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        while self.alive():
            if time.monotonic() > deadline and how is not signal.SIGKILL:
                how = signal.SIGKILL
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            time.sleep(_POLL_S)
        self.pid = None
        self._pid_path.unlink(missing_ok=True)

    def _await_lock(self, lock: int) -> None:
        # A killed server's last threads hold its files a moment longer than its pid lives.
        deadline = time.monotonic() + 5.0
        while not self._lock(lock):
            if time.monotonic() > deadline:
                raise DeployError(f"Another process holds the ZooKeeper data directory {self.data_dir}.")
            time.sleep(_POLL_S)

    def _lock(self, lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _adopt(self) -> bool:
        """Take the server that runs on the data directory as ours. False when none does."""
        try:
            pid = int(self._pid_path.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if not self._is_ours(pid):
            return False
        self.pid = pid
        return True

    def _is_ours(self, pid: int) -> bool:
        """Whether ``pid`` is a living server on our data directory; its command line tells, pids being reused."""
        while True:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                threads = len(os.listdir(f"/proc/{pid}/task"))
            except (FileNotFoundError, ProcessLookupError):
                return False
            if words or (state in "ZX" and threads == 1):
                return os.fsencode(self._config_path) in words.split(b"\0") and state not in "ZX"
            time.sleep(_POLL_S)  # in the midst of exec, or not yet done dying: it has no command line, but ports

    def _launch(self, command: list[str], lock: int) -> None:
        # The shell writes its pid before it becomes the server, so that at no moment a server runs unnamed.
        script = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"'
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", script, str(self._pid_path), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                pass_fds=(lock,),
                start_new_session=True,
            )
        self.pid = self._child.pid
        go_first(self.pid)

    def _command(self) -> list[str]:
        return [
            find_java(),
            f"-Xmx{self.heap_mb}m",
            f"-Xms{min(32, self.heap_mb)}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Djute.maxbuffer=4194304",
            # How long one server of an ensemble tries to reach another before it asks the next: by default 5 s, for
            # which an election stands still when a host is silent.
            "-Dzookeeper.cnxTimeout=500",
            # How long a server that is alone waits at most before it makes itself heard again: by default a minute. A
            # leader that is lost soon after another server's link was healed would not be replaced for as long.
            "-Dzookeeper.fastleader.maxNotificationInterval=1000",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.persistence=warn",
            "-cp",
            os.pathsep.join((find_jar(), str(Path(find_jar()).with_name("slf4j-simple.jar")))),
            _MAIN,
            str(self._config_path),
        ]

    def _config(self) -> str:
        lines = [
            f"dataDir={self.data_dir}",
            f"clientPort={self.client_port}",
            f"clientPortAddress={self.host}",
            f"tickTime={self.tick_time_ms}",
            "initLimit=20",
            f"syncLimit={self.sync_limit}",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=conf,srvr,ruok,stat,mntr",
            "autopurge.snapRetainCount=3",
            "autopurge.purgeInterval=1",
            "snapCount=20000",
            "preAllocSize=1024",
        ]
        lines += [f"server.{server_id}={address}" for server_id, address in sorted(self.servers.items())]
        return "\n".join(lines) + "\n"

    def _last_words(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return "it left no log."
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("SLF4J:", "\tat"))]
        if not lines:
            return f"it left no message in {self.log_path}."
        reasons = [line for line in lines if re.match(r"[\w.$]+(Exception|Error): ", line)]
        return f"{(reasons or lines)[-1]} (see {self.log_path})."
