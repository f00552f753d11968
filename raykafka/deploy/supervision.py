"""Calling a cluster's Supervisor, across its restarts."""

from __future__ import annotations

import time
from typing import Any

from raykafka.deploy.names import SUPERVISOR
from raykafka.deploy.ray_access import find_actor, first_sentence
from raykafka.errors import DeployError, RaykafkaError

_RETRY_S = 0.2


def ask_supervisor(cluster: str, method: str, *args: Any, within_s: float = 30.0) -> Any:
    """What the Supervisor's ``method`` returns; one that Ray restarts meanwhile is asked again.

    Raises DeployError when there is none, or when it has not answered in ``within_s`` seconds; what the method raises
    of ours comes out as it is.
    """
    import ray

    deadline = time.monotonic() + within_s
    problem = ""
    while time.monotonic() < deadline:
        supervisor = find_actor(cluster, SUPERVISOR, 0)
        if supervisor is None:
            raise DeployError(f"This Ray cluster has no raykafka cluster named {cluster}: deploy it first.")
        try:
            return ray.get(getattr(supervisor, method).remote(*args), timeout=deadline - time.monotonic())
        except ray.exceptions.GetTimeoutError:
            break
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.ActorDiedError) as error:
            problem = first_sentence(error)
            time.sleep(_RETRY_S)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RaykafkaError):
                raise error.cause from None
            raise DeployError(f"The Supervisor of {cluster} failed: {first_sentence(error)}") from None
    raise DeployError(f"The Supervisor of {cluster} gave no answer for {within_s:.0f} s. {problem}".rstrip())
