"""Tests on several simulated hosts. They need root and network namespaces, and are skipped, saying so, without."""

from __future__ import annotations

import pytest

from tests.lab.hosts.netlab import unavailable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if "multihost" in item.path.parts]
    reason = unavailable() if ours else None
    if reason is not None:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=f"simulated hosts: {reason}"))
