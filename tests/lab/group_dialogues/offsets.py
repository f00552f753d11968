"""Dialogues about what a group keeps: commits, fetches, deletions, listings."""

from __future__ import annotations

from typing import Any

from kio.index import load_payload_module
from kio.static.constants import EntityType

from tests.lab.group_dialogues.dialogue import (
    DELETE_GROUPS,
    LIST,
    OFFSET_DELETE,
    TOPIC,
    Dialogue,
    Play,
    collect,
    milliseconds,
)
from tests.lab.group_dialogues.membership import stable_pair

DIALOGUES: dict[str, Play] = {}
dialogue = collect(DIALOGUES)


@dialogue
async def commits_and_fetches_in_every_version(d: Dialogue) -> None:
    for version in range(2, 10):
        await d.commit(f"commit v{version}", "a", "", -1, 100 + version, version=version, leader_epoch=version)
        await d.fetch(f"fetched back v{max(version, 5)}", "a", 0, 1, version=max(version, 5))
    for version in range(2, 5):
        keeping: dict[str, Any] = {"retention_time": milliseconds(3_600_000), "partition": 1}
        await d.commit(f"commit with a retention of its own v{version}", "a", "", -1, version=version, **keeping)
    for version in range(1, 10):
        await d.fetch(f"fetch v{version}", "a", 0, 1, version=version)
    for version in range(2, 10):
        await d.fetch(f"fetch all v{version}", "a", version=version)
    await d.fetch("fetch of no group", "a", 0, group="nowhere")
    await d.fetch("fetch of no group v1", "a", 0, group="nowhere", version=1)
    await d.fetch("fetch all of no group", "a", group="nowhere")
    await d.describe("described", "a")


@dialogue
async def commits_of_members_and_others(d: Dialogue) -> None:
    a, b = await stable_pair(d)
    await d.commit("a member", "a", a, 2, 11)
    await d.commit("another member", "b", b, 2, 12, partition=1)
    await d.commit("an administrator", "x", "", -1)
    await d.commit("a generation too low", "a", a, 1)
    await d.commit("no generation", "a", a, -1)
    await d.commit("no member", "a", "", 2)
    await d.commit("nobody", "a", "nobody", 2)
    await d.commit("an unknown instance", "a", a, 2, group_instance_id="i")
    await d.commit("no metadata", "a", a, 2, 13, metadata=None)
    await d.commit("much metadata", "a", a, 2, 14, metadata="m" * 4096)
    await d.commit("too much metadata", "a", a, 2, 15, metadata="m" * 4097)
    await d.commit("a topic that is not", "a", a, 2, topic="nowhere")
    await d.commit("a partition that is not", "a", a, 2, partition=2)
    await d.commit("a negative offset", "a", a, 2, -5, partition=1)
    await d.fetch("in the end", "a", 0, 1)
    b_joins = d.joining("b", b, protocols=[("range", b"\0\2")])
    await d.until("PreparingRebalance", 2)
    await d.commit("during a rebalance", "a", a, 2, 16)
    await d.join("a joins", "a", a)
    await d.note("b joins", b_joins)
    await d.commit("before the sync", "a", a, 3, 17)
    await d.fetch("in the very end", "a", 0)


@dialogue
async def deleting(d: Dialogue) -> None:
    m = load_payload_module(OFFSET_DELETE, 0, EntityType.request)

    async def delete_offsets(label: str, *partitions: int, topic: str = TOPIC, group: str | None = None) -> None:
        parts = tuple(m.OffsetDeleteRequestPartition(partition_index=p) for p in partitions)
        topics = (m.OffsetDeleteRequestTopic(name=topic, partitions=parts),)
        await d.ask(label, "x", OFFSET_DELETE, 0, topics=topics, group_id=group or d.group)

    await d.ask("no group", "x", DELETE_GROUPS, 2, groups_names=(d.group,))
    await delete_offsets("offsets of no group", 0)
    a, b = await stable_pair(d)
    await d.commit("commit", "a", a, 2, 11)
    await d.commit("commit", "a", a, 2, 12, partition=1)
    await d.ask("a group with members", "x", DELETE_GROUPS, 2, groups_names=(d.group, "nowhere"))
    await delete_offsets("offsets it reads", 0)
    await delete_offsets("a topic that is not", 0, topic="nowhere")
    await d.leave("both leave", "a", (a, None), (b, None))
    await d.until("Empty")
    await delete_offsets("offsets of an empty group", 0)
    await d.fetch("one is left", "x", 0, 1)
    await d.ask("an empty group", "x", DELETE_GROUPS, 1, groups_names=(d.group,))
    await d.fetch("nothing is left", "x", 0, 1)
    await d.describe("nothing", "x")
    await d.ask("again", "x", DELETE_GROUPS, 2, groups_names=(d.group,))


@dialogue
async def deleting_offsets_of_other_kinds_of_groups(d: Dialogue) -> None:
    m = load_payload_module(OFFSET_DELETE, 0, EntityType.request)
    parts = (m.OffsetDeleteRequestPartition(partition_index=0),)
    topics = (m.OffsetDeleteRequestTopic(name=TOPIC, partitions=parts),)
    a = await d.member("a", protocol_type="connect")
    await d.join("a joins", "a", a, protocol_type="connect")
    await d.ask("before the sync", "x", OFFSET_DELETE, 0, topics=topics)
    await d.sync("a syncs", "a", a, 1, {a: b"all"}, protocol_type="connect")
    await d.ask("a group of another type", "x", OFFSET_DELETE, 0, topics=topics)
    d.group += "-broken"
    b = await d.member("b", protocols=[("range", b"\1")])
    await d.join("a subscription that can't be read", "b", b, protocols=[("range", b"\1")])
    await d.sync("it syncs", "b", b, 1, {b: b"all"})
    await d.commit("it commits", "b", b, 1)
    await d.ask("a group whose subscriptions can't be read", "x", OFFSET_DELETE, 0, topics=topics)


@dialogue
async def listing(d: Dialogue) -> None:
    a = await d.member("a")
    await d.join("a joins", "a", a)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    simple = d.group + "-simple"
    await d.commit("a consumer without a group", "x", "", -1, group_id=simple)

    async def listed(label: str, version: int, **filters: Any) -> None:
        answer = await d.begin("x", LIST, version, **{"states_filter": (), "types_filter": (), **filters})
        ours = [d._plain(g) for g in answer.groups if d._nonce in g.group_id]
        d.lines.append([label, answer.error_code.value, sorted(ours, key=lambda g: g["group_id"])])

    for version in range(6):
        await listed(f"v{version}", version)
    await listed("stable", 4, states_filter=("stable",))
    await listed("Empty", 5, states_filter=("Empty",))
    await listed("classic", 5, types_filter=("Classic",))
    await listed("consumer", 5, types_filter=("consumer",))
    await listed("nonsense", 5, states_filter=("nonsense",))
