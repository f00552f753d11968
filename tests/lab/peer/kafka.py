"""A real Apache Kafka: its jars by Maven, its tools, and clusters of it, with ZooKeeper (3.9) or KRaft (4.3).

Tests compare raykafka with it, and benchmarks race against it. It needs the standard library alone, so that it runs
before anything is installed. Needs ``java`` and, the first time, ``mvn``.

Environment: ``RAYKAFKA_PEER_CACHE`` (folder of the jars, default ``~/.cache/raykafka/kafka``) and ``KAFKA_VERSION``
(which tools the command line runs, default 3.9.2).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.free_ports import addresses, free_ports

HERE = Path(__file__).resolve().parent
VERSIONS = ("3.9.2", "4.3.1")
SERVER_VERSION = "3.9.2"  # the last line of Kafka that runs on ZooKeeper
CLUSTER_ID = "cmF5a2Fma2EtcGVlci0wMQ"  # 16 bytes in base64, as KRaft's storage wants it
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
SHUTDOWN_TIMEOUT_S = 120.0  # one of many partitions hands over every leadership first

# tool -> (main class in Kafka 3.9, main class in Kafka 4)
_TOOLS = "org.apache.kafka.tools."
TOOLS: dict[str, tuple[str, str]] = {
    "kafka-topics": (_TOOLS + "TopicCommand",) * 2,
    "kafka-configs": ("kafka.admin.ConfigCommand",) * 2,
    "kafka-acls": ("kafka.admin.AclCommand", _TOOLS + "AclCommand"),
    "kafka-console-producer": ("kafka.tools.ConsoleProducer", _TOOLS + "ConsoleProducer"),
    "kafka-console-consumer": (_TOOLS + "consumer.ConsoleConsumer",) * 2,
    "kafka-consumer-groups": (_TOOLS + "consumer.group.ConsumerGroupCommand",) * 2,
    "kafka-groups": (_TOOLS + "GroupsCommand",) * 2,
    "kafka-producer-perf-test": (_TOOLS + "ProducerPerformance",) * 2,
    "kafka-consumer-perf-test": (_TOOLS + "ConsumerPerformance",) * 2,
    "kafka-e2e-latency": (_TOOLS + "EndToEndLatency",) * 2,
    "kafka-verifiable-producer": (_TOOLS + "VerifiableProducer",) * 2,
    "kafka-verifiable-consumer": (_TOOLS + "VerifiableConsumer",) * 2,
    "kafka-dump-log": ("kafka.tools.DumpLogSegments", _TOOLS + "DumpLogSegments"),
    "kafka-log-dirs": (_TOOLS + "LogDirsCommand",) * 2,
    "kafka-get-offsets": (_TOOLS + "GetOffsetShell",) * 2,
    "kafka-delete-records": (_TOOLS + "DeleteRecordsCommand",) * 2,
    "kafka-reassign-partitions": (_TOOLS + "reassign.ReassignPartitionsCommand",) * 2,
    "kafka-leader-election": (_TOOLS + "LeaderElectionCommand",) * 2,
    "kafka-replica-verification": (_TOOLS + "ReplicaVerificationTool",) * 2,
    "kafka-transactions": (_TOOLS + "TransactionsCommand",) * 2,
    "kafka-broker-api-versions": ("kafka.admin.BrokerApiVersionsCommand", _TOOLS + "BrokerApiVersionsCommand"),
    "kafka-cluster": (_TOOLS + "ClusterTool",) * 2,
    "kafka-features": (_TOOLS + "FeatureCommand",) * 2,
    "kafka-client-metrics": (_TOOLS + "ClientMetricsCommand",) * 2,
}
# Tools that work long enough for the JVM's optimising compiler to matter; the others start faster without it.
_LONG_RUNNING = ("perf-test", "verifiable", "e2e-latency")
_SERVER_FLAGS = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)


class PeerError(Exception):
    """The peer can't be fetched or started; the message says what is missing or what its log said."""


def cache_dir() -> Path:
    return Path(os.environ.get("RAYKAFKA_PEER_CACHE") or Path.home() / ".cache" / "raykafka" / "kafka").expanduser()


def jars(version: str) -> Path:
    """The folder with the jars of that version of Kafka, fetched with Maven the first time (about a minute)."""
    target = cache_dir() / f"libs-{version}"
    if target.is_dir():
        return target
    if shutil.which("mvn") is None:
        raise PeerError(
            f"Kafka {version} is not in {target.parent} and there is no mvn to fetch it: run scripts/setup --peer"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            shutil.copy(HERE / "pom.xml", scratch)
            command = ["mvn", "-B", "-q", "dependency:copy-dependencies", f"-Dkafka.version={version}"]
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={scratch}/libs"]
            if not version.startswith("3."):
                command.append("-Plog4j2")
            done = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise PeerError(f"Maven could not fetch Kafka {version}:\n{(done.stdout + done.stderr)[-2000:]}")
            os.rename(f"{scratch}/libs", target)
    return target


def _java(version: str, main_class: str, *, heap: str, flags: Sequence[str], log_config: str) -> list[str]:
    if shutil.which("java") is None:
        raise PeerError("there is no java on the PATH: run scripts/setup --peer")
    logging_key = "log4j.configuration" if version.startswith("3.") else "log4j2.configurationFile"
    logging_file = HERE / (log_config + (".log4j.properties" if version.startswith("3.") else ".log4j2.properties"))
    return [
        "java",
        f"-Xmx{heap}",
        *flags,
        f"-D{logging_key}=file:{logging_file}",
        "-cp",
        f"{jars(version)}/*",
        main_class,
    ]


def tool_command(tool: str, *args: str, version: str = SERVER_VERSION) -> list[str]:
    """The command line that runs a tool by the name it has in Kafka's ``bin`` folder."""
    if tool not in TOOLS:
        raise PeerError(f"unknown tool {tool}; there are: {', '.join(sorted(TOOLS))}")
    long_running = any(word in tool for word in _LONG_RUNNING)
    flags = _SERVER_FLAGS if long_running else ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
    main_class = TOOLS[tool][0 if version.startswith("3.") else 1]
    heap = "512M" if long_running else "256M"
    return _java(version, main_class, heap=heap, flags=flags, log_config="tools") + list(args)


def run_tool(
    tool: str, *args: str, version: str = SERVER_VERSION, stdin: str = "", timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end. Raises ``PeerError`` with what it printed when it fails.

    The first run leaves the classes that it has loaded in an archive: with that, all others start in half the time.
    """
    command = tool_command(tool, *args, version=version)
    archive = cache_dir() / f"classes-{version}.jsa"
    made = None if archive.exists() else archive.with_name(f"{archive.name}.{os.getpid()}")
    sharing = f"-XX:SharedArchiveFile={archive}" if made is None else f"-XX:ArchiveClassesAtExit={made}"
    command[1:1] = [sharing, "-Xlog:disable"]  # the JVM would tell of classes that it leaves out, between tool's words
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s)
    if made is not None and made.exists():
        made.replace(archive)
    if done.returncode != 0:
        raise PeerError(
            f"{tool} {' '.join(args)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return done


@dataclass
class ApacheKafka:
    """1 or 3 brokers of Apache Kafka on 127.0.0.1, each with listeners INSIDE and OUTSIDE.

    Version 3.9 runs with a ZooKeeper; version 4.3 in KRaft mode, each process broker and controller (combined mode,
    the fewest processes that Kafka 4 can do with; ``process.roles``). Everything lives in ``directory``. ``settings``
    are more broker properties. Broker i serves ``port + i`` (INSIDE) and ``port + 10 + i`` (OUTSIDE), its controller
    ``port + 20 + i``; ports are free ones when not given.
    """

    directory: Path
    brokers: int = 1
    port: int = 0
    zookeeper_port: int = 0
    heap: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    version: str = SERVER_VERSION

    def __post_init__(self) -> None:
        self.directory = Path(self.directory).resolve()
        if not self.port:
            self.port = free_ports(23)
        self.zookeeper_port = self.zookeeper_port or self.port + 20
        self.heap = self.heap or ("1G" if self.brokers == 1 else "512M")

    @property
    def with_zookeeper(self) -> bool:
        return self.version.startswith("3.")

    @property
    def bootstrap(self) -> str:
        return addresses(self.port, self.brokers)

    @property
    def bootstrap_outside(self) -> str:
        return addresses(self.port + 10, self.brokers)

    def start(self) -> None:
        """Start all servers and wait until they serve. Data from an earlier start is kept."""
        if self.pids():
            raise PeerError(f"a Kafka already runs from {self.directory}")
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            if self.with_zookeeper:
                self._start_zookeeper()
            else:
                self._format_storage()
            for broker_id in range(self.brokers):
                self.launch_broker(broker_id)
            for broker_id in range(self.brokers):
                if not self.has_started(broker_id):
                    name = f"broker-{broker_id}"
                    raise PeerError(f"Kafka's {name} did not start:\n{self._log_tail(name)}")
        except BaseException:
            self.stop()
            raise

    def launch_broker(self, broker_id: int) -> None:
        """Start one broker's process; returns at once. Its log of an earlier start is replaced."""
        self._launch(f"broker-{broker_id}", "kafka.Kafka", self.heap, self._broker_properties(broker_id))

    def has_started(self, broker_id: int) -> bool:
        """Wait until a broker that was launched serves; False when it ended before, or takes too long."""
        name = f"broker-{broker_id}"
        said = f"[KafkaServer id={broker_id}] started" if self.with_zookeeper else "Kafka Server started"
        log = self.directory / f"{name}.log"
        return _until(lambda: said in log.read_text(errors="replace"), START_TIMEOUT_S, self._is_running(name))

    def stop_broker(self, broker_id: int) -> None:
        """A controlled shutdown of one broker; returns when it has ended. Raises PeerError when it takes too long."""
        self._signal(f"broker-{broker_id}", signal.SIGTERM)
        self.wait_ended(broker_id, SHUTDOWN_TIMEOUT_S)

    def wait_ended(self, broker_id: int, within_s: float = STOP_TIMEOUT_S) -> None:
        """Until the process of a broker has ended. Raises PeerError when it takes too long."""
        name = f"broker-{broker_id}"
        if not _until(lambda: name not in self.pids(), within_s):
            raise PeerError(f"Kafka's {name} has not ended after {within_s:.0f} s:\n{self._log_tail(name)}")

    def stop(self) -> None:
        """Stop the brokers, then ZooKeeper; whoever does not end in time is killed."""
        names = sorted(self.pids())
        for group in ([n for n in names if n.startswith("broker-")], [n for n in names if n == "zookeeper"]):
            for name in group:
                self._signal(name, signal.SIGTERM)
            for name in group:
                if not self._ended(name):
                    self._signal(name, signal.SIGKILL)
                    self._ended(name)
                (self.directory / f"{name}.pid").unlink(missing_ok=True)

    def _ended(self, name: str) -> bool:
        """Whether the process ends within the time that it has to stop."""
        return _until(lambda: name not in self.pids(), STOP_TIMEOUT_S)

    def pids(self) -> dict[str, int]:
        """The processes that run: ``zookeeper``, ``broker-0``, ... to pid (a pid reused by others does not count)."""
        found = {}
        for file in sorted(self.directory.glob("*.pid")):
            pid, start_time = map(int, file.read_text().split())
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # a stopped child of this process is a zombie until then
            if _start_time(pid) == start_time:
                found[file.stem] = pid
        return found

    def _start_zookeeper(self) -> None:
        data = self.directory / "zookeeper"
        data.mkdir(exist_ok=True)
        properties = {
            "dataDir": data,
            "clientPort": self.zookeeper_port,
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
        }
        self._launch("zookeeper", "org.apache.zookeeper.server.quorum.QuorumPeerMain", "256M", properties)
        if not _until(lambda: _listens(self.zookeeper_port), START_TIMEOUT_S, self._is_running("zookeeper")):
            raise PeerError(f"ZooKeeper did not start:\n{self._log_tail('zookeeper')}")

    def _format_storage(self) -> None:
        """Give each broker's log directory its ids, as KRaft wants it before the first start."""
        for broker_id in range(self.brokers):
            config = self._write_config(f"broker-{broker_id}", self._broker_properties(broker_id))
            flags = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
            command = _java(self.version, "kafka.tools.StorageTool", heap="256M", flags=flags, log_config="tools")
            command += ["format", "--cluster-id", CLUSTER_ID, "--config", str(config), "--ignore-formatted"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise PeerError(f"Kafka could not format its storage:\n{(done.stdout + done.stderr)[-2000:]}")

    def _broker_properties(self, broker_id: int) -> dict[str, object]:
        listeners = f"INSIDE://127.0.0.1:{self.port + broker_id},OUTSIDE://127.0.0.1:{self.port + 10 + broker_id}"
        replicas = min(self.brokers, 3)
        properties: dict[str, object] = {
            "advertised.listeners": listeners,
            "inter.broker.listener.name": "INSIDE",
            "log.dirs": self.directory / f"broker-{broker_id}",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": min(replicas, 2),
            "group.initial.rebalance.delay.ms": 0,
        }
        protocols = "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT"
        if self.with_zookeeper:
            properties |= {
                "broker.id": broker_id,
                "listeners": listeners,
                "listener.security.protocol.map": protocols,
                "zookeeper.connect": f"127.0.0.1:{self.zookeeper_port}",
            }
        else:
            controllers = [f"127.0.0.1:{self.port + 20 + i}" for i in range(self.brokers)]
            properties |= {
                "node.id": broker_id,
                "process.roles": "broker,controller",
                "listeners": f"{listeners},CONTROLLER://{controllers[broker_id]}",
                "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
                "controller.listener.names": "CONTROLLER",
                "controller.quorum.voters": ",".join(f"{i}@{address}" for i, address in enumerate(controllers)),
            }
        return properties | self.settings

    def _write_config(self, name: str, properties: dict[str, object]) -> Path:
        config = self.directory / f"{name}.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        return config

    def _launch(self, name: str, main_class: str, heap: str, properties: dict[str, object]) -> None:
        config = self._write_config(name, properties)
        flags = (f"-Xms{heap}", *_SERVER_FLAGS)
        command = _java(self.version, main_class, heap=heap, flags=flags, log_config="server")
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [*command, str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (self.directory / f"{name}.pid").write_text(f"{process.pid} {_start_time(process.pid)}")

    def _is_running(self, name: str) -> Callable[[], bool]:
        return lambda: name in self.pids()

    def _log_tail(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self.pids().get(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; together with the pid it names a process for good."""
    try:
        # The name in parentheses may hold spaces; the start time is field 22 of the line.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(condition: Callable[[], bool], timeout_s: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Wait for the condition; False when the time is over or the process that should bring it about is gone."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        if not alive():
            return condition()
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def running(kafka: ApacheKafka) -> Iterator[ApacheKafka]:
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.stop()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/peer", description="A real Apache Kafka: tools and clusters.")
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="fetch Kafka's jars with Maven")
    fetch.add_argument("versions", nargs="*", default=list(VERSIONS))
    start = commands.add_parser("start", help="start a Kafka and print its addresses")
    start.add_argument("directory", type=Path, help="where its data, logs and pid files go")
    start.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    start.add_argument("--port", type=int, default=0)
    start.add_argument("--version", choices=VERSIONS, default=SERVER_VERSION, help="3.9 has a ZooKeeper, 4.3 KRaft")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another broker property")
    stop = commands.add_parser("stop", help="stop the Kafka that was started in that directory")
    stop.add_argument("directory", type=Path)
    tool = commands.add_parser("tool", help="run one of Kafka's tools: tool kafka-topics --list ...")
    tool.add_argument("name", choices=sorted(TOOLS), metavar="name")
    tool.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    try:
        if options.command == "fetch":
            for version in options.versions:
                print(jars(version))
        elif options.command == "start":
            settings = dict(pair.split("=", 1) for pair in options.set)
            kafka = ApacheKafka(
                options.directory, options.brokers, options.port, settings=settings, version=options.version
            )
            kafka.start()
            print(f"INSIDE {kafka.bootstrap}\nOUTSIDE {kafka.bootstrap_outside}")
        elif options.command == "stop":
            ApacheKafka(options.directory, port=1).stop()
        else:
            version = os.environ.get("KAFKA_VERSION", SERVER_VERSION)
            command = tool_command(options.name, *options.arguments, version=version)
            os.execvp(command[0], command)
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
