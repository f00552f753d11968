"""The table of the APIs that a process knows, built from the modules that serve them.

A process makes one ``Registry`` of the API packages that it serves or forwards to, and loads nobody else's. Such a
package says in its ``PLACE`` which process runs its handlers. A module of it serves one API:

``API_KEY``, ``VERSIONS``
    the key, and the lowest and highest version served
``NEEDS``
    the operations on types of resources that its handler asks its context for (``raykafka.protocol.acl``). Empty only
    with ``OPEN_TO_ALL``, which says why nobody is refused
``ADVERTISED``
    optional: the versions that ApiVersions names, where that differs
``async handle(context, request, server) -> response``
    on kio's dataclasses: ``request`` is written for the class of the highest version, and what older versions have
    otherwise is told apart by ``context.api_version``. ``server`` is what the package's handlers need of their process.
    A KafkaError that it raises is answered by ``error_response(context, request, error)`` if the module has one, else
    by the response's top-level error code with everything else empty
``handle_raw(context, body, server) -> awaitable list of buffers``
    instead of ``handle``, for an API that has its own codec; no buffers: nothing is to be answered. A plain function
    may begin its work at once and return an Answer. ``FLEXIBLE_FROM`` is its first version with flexible headers
``CHANGES_NOTHING``, ``EVERY_BROKER``, ``WHILE_UNAVAILABLE``
    optional, for what a coordinator answers (``raykafka.replica_actor.coordination``). True where a request changes
    nothing: it is asked again where the process ends over it. True where every broker answers, one that leads no
    partition of the coordinator's topic as well. And the ErrorCode that clients are told while there is no process,
    where it isn't NOT_COORDINATOR: one after which they ask again

A module without ``API_KEY`` is code that several APIs share.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
import types
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.protocol import codec
from raykafka.protocol.acl import Need
from raykafka.protocol.context import RequestContext

_LET_OTHERS_RUN_S = 0.005

Handler = Callable[[RequestContext, Any, Any], Awaitable[Any]]


class Place(StrEnum):
    """Which process runs a handler: the one that has the client's connection, or one that it forwards to."""

    FRONT = "front"
    BROKER = "broker"
    COORDINATOR = "coordinator"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Api:
    """One API. ``place`` says which process runs its handler."""

    key: int
    name: str
    versions: tuple[int, int]
    advertised: tuple[int, int]
    place: Place
    needs: tuple[Need, ...]
    module: types.ModuleType
    handle: Handler | None
    handle_raw: Handler | None
    changes_nothing: bool = False
    every_broker: bool = False
    while_unavailable: ErrorCode = ErrorCode.NOT_COORDINATOR
    flexible_from: int | None = None

    def serves(self, version: int) -> bool:
        return self.advertised[0] <= version <= self.advertised[1]


class Registry:
    """The APIs of ``packages`` by key. Iterates over them in the order of their keys.

    Raises RuntimeError where two modules serve one API, and where one does not declare what it needs.
    """

    def __init__(self, *packages: types.ModuleType) -> None:
        self._apis: dict[int, Api] = {}
        for package in packages:
            for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
                module = importlib.import_module(info.name)
                if hasattr(module, "API_KEY"):
                    self.add(_api(module, package.PLACE))

    def add(self, api: Api) -> None:
        other = self._apis.get(api.key)
        if other is not None:
            raise RuntimeError(f"{api.module.__name__} and {other.module.__name__} both serve API {api.key}")
        self._apis[api.key] = api
        self._apis = dict(sorted(self._apis.items()))

    def __iter__(self) -> Iterator[Api]:
        return iter(self._apis.values())

    def get(self, api_key: int) -> Api | None:
        """The API with that key, or None."""
        return self._apis.get(api_key)

    def load(self, place: Place) -> None:
        """Load all schemas of the APIs of ``place`` that have no codec of their own: some hundred modules, which take
        seconds on a busy machine. It blocks, so run it in a thread; a first request that found them missing would block
        the event loop as long. Between two of them it lets the event loop have the interpreter."""
        for api in self:
            if api.place is place and api.handle_raw is None:
                for version in range(api.versions[0], api.versions[1] + 1):
                    codec.load(api.key, version)
                    time.sleep(_LET_OTHERS_RUN_S)


def _api(module: types.ModuleType, place: Place) -> Api:
    stem = module.__name__.rpartition(".")[2]
    return Api(
        key=module.API_KEY,
        name="".join(word.capitalize() for word in stem.split("_")),
        versions=module.VERSIONS,
        advertised=getattr(module, "ADVERTISED", module.VERSIONS),
        place=place,
        needs=_needs(module),
        module=module,
        handle=getattr(module, "handle", None),
        handle_raw=getattr(module, "handle_raw", None),
        changes_nothing=getattr(module, "CHANGES_NOTHING", False),
        every_broker=getattr(module, "EVERY_BROKER", False),
        while_unavailable=getattr(module, "WHILE_UNAVAILABLE", ErrorCode.NOT_COORDINATOR),
        flexible_from=getattr(module, "FLEXIBLE_FROM", None),
    )


def _needs(module: types.ModuleType) -> tuple[Need, ...]:
    needs: tuple[Need, ...] | None = getattr(module, "NEEDS", None)
    if needs is None:
        raise RuntimeError(f"{module.__name__} does not declare the operations that it needs: NEEDS is missing")
    if not needs and not getattr(module, "OPEN_TO_ALL", ""):
        raise RuntimeError(f"{module.__name__} needs nothing, and does not say in OPEN_TO_ALL why")
    return needs
