"""A ZooKeeper session: connecting with a chroot and ACLs, reads that outlast a lost connection, conditional
transactions.

All calls block; event loops run them in a thread. kazoo calls listeners and watches in threads of its own: they must
only hand over to a loop (``loop.call_soon_threadsafe``).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import (
    BadVersionError,
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
    UnimplementedError,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL

from raykafka.errors import RaykafkaError
from raykafka.zookeeper import multi_read

DIGEST_USER = "raykafka"
ANY_VERSION = -1
_RECONNECT_DELAY_S = 0.05
_RECONNECT_MAX_DELAY_S = 1.0
# some 100 KB of paths: a request has at most 1 MB (ZooKeeper's jute.maxbuffer)
_READ_AT_ONCE = 1000
_T = TypeVar("_T")

Node = tuple[bytes, Any] | None


class Conflict(RaykafkaError):
    """A conditional write found ZooKeeper in another state than it named; nothing of it was written."""


class ZooKeeperUnreachable(RaykafkaError):
    """No ZooKeeper server answered in time."""


class _Handler(SequentialThreadingHandler):
    """Gives up on a server that does not take the connection while there is time left to try the others: kazoo would
    wait for a silent host until the session is over."""

    def __init__(self, connect_within_s: float) -> None:
        super().__init__()
        self._connect_within_s = connect_within_s

    def create_connection(self, *args: Any, timeout: float, **kwargs: Any) -> Any:
        return super().create_connection(*args, timeout=min(timeout, self._connect_within_s), **kwargs)


class ZooKeeperClient(KazooClient):
    """kazoo's client, which tries the servers in the order given, each for a part of the session timeout only, and
    tells the session timeout that the server granted."""

    negotiated_session_timeout_ms: int

    def __init__(self, hosts: str, timeout: float, **kwargs: Any) -> None:
        handler = _Handler(timeout / (2 * len(hosts.split(","))))
        super().__init__(hosts=hosts, timeout=timeout, randomize_hosts=False, handler=handler, **kwargs)
        self.negotiated_session_timeout_ms = self._session_timeout
        invoke = self._connection._invoke

        def connecting_invoke(answer_within_s: float, request: Any, xid: int | None = None) -> Any:
            if type(request).__name__ != "Connect":
                return invoke(answer_within_s, request, xid)
            # A server that starts may take a connection and never answer on it: there has to be time for the next.
            answer = invoke(min(answer_within_s, timeout / 3), request, xid)
            if answer[0].time_out > 0:
                self.negotiated_session_timeout_ms = answer[0].time_out
            return answer

        self._connection._invoke = connecting_invoke


def digest_password(secret: bytes) -> str:
    """The password of our digest user: derived, so that ZooKeeper's logs and nodes never show the cluster secret."""
    return hmac.new(secret, b"raykafka zookeeper digest", hashlib.sha256).hexdigest()


def connect(
    hosts: str, secret: bytes | None = None, session_timeout_ms: int = 6000, connect_timeout_s: float = 15.0
) -> ZooKeeperClient:
    """Open a session at ``host:port,...[/chroot]``, making the chroot if it is missing.

    With a ``secret`` the session authenticates by digest and everything it creates is for that user alone. Raises
    ZooKeeperUnreachable.
    """
    forever = KazooRetry(max_tries=-1, delay=_RECONNECT_DELAY_S, backoff=2, max_delay=_RECONNECT_MAX_DELAY_S)
    client = ZooKeeperClient(
        hosts=hosts.partition("/")[0],
        timeout=session_timeout_ms / 1000,
        connection_retry=forever,
        auth_data=[("digest", f"{DIGEST_USER}:{digest_password(secret)}")] if secret else None,
        default_acl=CREATOR_ALL_ACL if secret else None,
    )
    try:
        client.start(timeout=connect_timeout_s)
    except KazooTimeoutError:
        client.close()
        raise ZooKeeperUnreachable(
            f"no ZooKeeper server answered at {hosts} within {connect_timeout_s:g} s: "
            "is it running, and is the address right?"
        ) from None
    chroot = "/" + hosts.partition("/")[2].strip("/")
    if chroot != "/":
        ensure_path(client, chroot)
        client.chroot = chroot
    return client


def close(client: KazooClient) -> None:
    """End the session: its ephemeral nodes go at once."""
    client.stop()
    client.close()


def reading(operation: Callable[[], _T]) -> _T:
    """The result of a read (or of a write that may be repeated freely), asked again for as long as connections get
    lost.

    The session's end raises SessionExpiredError or ConnectionClosedError, so this cannot wait on a session that is
    gone.
    """
    while True:
        try:
            return operation()
        except ConnectionLoss:
            time.sleep(_RECONNECT_DELAY_S)


def ensure_path(client: KazooClient, path: str) -> None:
    """Create ``path`` and its parents, empty, where they are missing."""
    reading(lambda: client.ensure_path(path))


def create_if_missing(client: KazooClient, path: str, data: bytes) -> None:
    """Create ``path`` (and its parents) with ``data``; leave it as it is if somebody else was first."""
    with contextlib.suppress(NodeExistsError):
        reading(lambda: client.create(path, data, makepath=True))


def reading_all(client: KazooClient, paths: Iterable[str]) -> list[Node]:
    """Data and stat of each path, None where there is no node. One round trip's wait for all of them."""
    wanted = list(paths)
    try:
        return reading(lambda: _read_together(client, wanted))
    except UnimplementedError:
        return reading(lambda: _read_singly(client, wanted))  # ZooKeeper 3.5


def _read_together(client: KazooClient, paths: Sequence[str]) -> list[Node]:
    parts = [paths[start : start + _READ_AT_ONCE] for start in range(0, len(paths), _READ_AT_ONCE)]
    nodes: list[Node] = []
    for result in [multi_read.read_async(client, part) for part in parts]:
        for found in result.get():
            if isinstance(found, KazooException) and not isinstance(found, NoNodeError):
                raise found
            nodes.append(None if isinstance(found, NoNodeError) else found)
    return nodes


def _read_singly(client: KazooClient, paths: Sequence[str]) -> list[Node]:
    nodes: list[Node] = []
    for result in [client.get_async(path) for path in paths]:
        try:
            nodes.append(result.get())
        except NoNodeError:
            nodes.append(None)
    return nodes


def children_of_all(client: KazooClient, paths: Sequence[str]) -> list[list[str]]:
    """The names of the children of each path, which must be there. One round trip's wait for all of them."""
    return reading(lambda: [result.get() for result in [client.get_children_async(path) for path in paths]])


@dataclass(frozen=True, slots=True)
class Create:
    """Create a node that must not exist."""

    path: str
    data: bytes = b""
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """Write a node that must have ``version`` (ANY_VERSION: just exist)."""

    path: str
    data: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a node that must exist and have no children."""

    path: str


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing; the node must have ``version``."""

    path: str
    version: int


Operation = Create | Write | Delete | Check


def commit(client: KazooClient, operations: Sequence[Operation], *, read_back: bool = True) -> None:
    """Do all of ``operations`` in one transaction, or none. Raises Conflict when a condition did not hold.

    After ConnectionLoss the outcome is unknown. The same transaction is sent again, and its conditions let it land only
    once; if it conflicts then, ``read_back`` decides by what stands in ZooKeeper whether it was this very write that
    had landed. That needs data which names its writer.
    """
    unknown = False
    while True:
        transaction = client.transaction()
        for operation in operations:
            _add(transaction, operation)
        try:
            results = transaction.commit()
        except ConnectionLoss:
            unknown = True
            time.sleep(_RECONNECT_DELAY_S)
            continue
        for operation, result in zip(operations, results, strict=True):
            if not isinstance(result, KazooException) or isinstance(result, (RolledBackError, RuntimeInconsistency)):
                continue
            if not isinstance(result, (BadVersionError, NodeExistsError, NoNodeError, NotEmptyError)):
                raise result
            if unknown and read_back and _stands(client, operations):
                return
            raise Conflict(f"{type(operation).__name__} of {operation.path}: {type(result).__name__}") from result
        return


def _add(transaction: TransactionRequest, operation: Operation) -> None:
    match operation:
        case Create(path, data, ephemeral):
            transaction.create(path, data, ephemeral=ephemeral)
        case Write(path, data, version):
            transaction.set_data(path, data, version)
        case Delete(path):
            transaction.delete(path)
        case Check(path, version):
            transaction.check(path, version)


def _stands(client: KazooClient, operations: Sequence[Operation]) -> bool:
    """Whether the nodes are as ``operations`` leave them."""
    created = {operation.path for operation in operations if isinstance(operation, Create)}
    expected = [o for o in operations if not isinstance(o, Check) and not (isinstance(o, Delete) and o.path in created)]
    found = reading_all(client, [operation.path for operation in expected])
    return all(_as_left(operation, node) for operation, node in zip(expected, found, strict=True))


def _as_left(operation: Operation, node: Node) -> bool:
    match operation:
        case Create(_, data, _):
            return node is not None and node[0] == data
        case Write(_, data, version):
            return node is not None and node[0] == data and version in (ANY_VERSION, node[1].version - 1)
        case _:
            return node is None
