"""Finding a cluster by name, through Ray."""

from __future__ import annotations

from typing import Any

from raykafka.deploy.names import NAMESPACE, SUPERVISOR, actor_name
from raykafka.errors import ClientError

_WITHIN_S = 30.0


def addresses_of(name: str, listener: str | None) -> str:
    """``host:port,...`` of the cluster's brokers on ``listener`` (None: the inter-broker listener), asked of Ray now.

    A process outside Ray attaches to the Ray cluster that runs on this machine. Raises ClientError.
    """
    import ray

    if not ray.is_initialized():
        _attach()
    try:
        supervisor: Any = ray.get_actor(actor_name(name, SUPERVISOR, 0), namespace=NAMESPACE)
    except ValueError:
        raise ClientError(
            f"This Ray cluster has no raykafka cluster named {name}: deploy it, or connect by bootstrap address."
        ) from None
    try:
        return ray.get(supervisor.bootstrap.remote(listener), timeout=_WITHIN_S)
    except ray.exceptions.GetTimeoutError:
        raise ClientError(f"The Supervisor of {name} gave no answer for {_WITHIN_S:.0f} s.") from None
    except ray.exceptions.RayTaskError as error:
        raise ClientError(str(error.cause)) from None
    except ray.exceptions.RayError as error:
        raise ClientError(f"The Supervisor of {name} is not there: {error}") from None


def _attach() -> None:
    import ray

    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        raise ClientError(
            "No Ray cluster runs on this machine to look the name up in: connect by bootstrap address (host:port)."
        ) from None
