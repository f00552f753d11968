"""Finding a cluster by name, through Ray."""

from __future__ import annotations

from raykafka.deploy.supervision import ask_supervisor
from raykafka.errors import ClientError, DeployError


def addresses_of(name: str, listener: str | None) -> str:
    """``host:port,...`` of the cluster's brokers on ``listener`` (None: the inter-broker listener), asked of Ray now.

    A process outside Ray attaches to the Ray cluster that runs on this machine. Raises ClientError.
    """
    import ray

    if not ray.is_initialized():
        _attach()
    try:
        return ask_supervisor(name, "bootstrap", listener)
    except DeployError as error:
        raise ClientError(str(error)) from None


def _attach() -> None:
    import ray
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    try:
        # Ray itself shows a token file to a cluster that it found by itself, not to one that RAY_ADDRESS names.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        raise ClientError(
            "No Ray cluster runs on this machine to look the name up in: connect by bootstrap address (host:port)."
        ) from None
