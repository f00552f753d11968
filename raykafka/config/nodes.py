"""Which nodes of a Ray cluster a part of the cluster file means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class NodeChoice(BaseModel):
    """All nodes, or those that have a resource of this name and these labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resource: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    def takes(self, resources: Mapping[str, float], labels: Mapping[str, str]) -> bool:
        wanted = self.resource is None or resources.get(self.resource, 0) > 0
        return wanted and all(labels.get(key) == value for key, value in self.labels.items())


def _all_nodes(value: Any) -> Any:
    if isinstance(value, str):
        if value != "all":
            raise ValueError(f"must be all, or resource: NAME, or labels: {{KEY: VALUE}}, not {value!r}")
        return {}
    return value


Nodes = Annotated[NodeChoice, BeforeValidator(_all_nodes)]
