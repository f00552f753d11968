"""Dialogues about who is in a group: joins, syncs, heartbeats, static members, members that fall silent."""

from __future__ import annotations

import asyncio

from kio.index import load_payload_module
from kio.static.constants import EntityType

from tests.lab.group_dialogues.dialogue import (
    DEADLINE_S,
    DELETE_GROUPS,
    OFFSET_DELETE,
    TOPIC,
    Dialogue,
    Play,
    collect,
    subscription,
)

DIALOGUES: dict[str, Play] = {}
dialogue = collect(DIALOGUES)


async def stable_pair(d: Dialogue) -> tuple[str, str]:
    """Members a (leader) and b of a stable generation 2."""
    a = await d.member("a")
    await d.join("a joins", "a", a)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    b = await d.member("b")
    b_joins = d.joining("b", b)
    await d.until("PreparingRebalance", 2)
    await d.heartbeat("a hears of the rebalance", "a", a, 1)
    await d.join("a joins again", "a", a)
    await d.note("b joined", b_joins)
    b_syncs = d.syncing("b", b, 2)
    await d.sync("a assigns", "a", a, 2, {a: b"part a", b: b"part b"})
    await d.note("b learns its part", b_syncs)
    return a, b


@dialogue
async def a_member_joins_in_every_version(d: Dialogue) -> None:
    for version in range(10):
        d.group = f"group-{d._nonce}-{version}"
        answer = await d.join(f"first join v{version}", "a", version=version)
        member = answer.member_id
        if version >= 4:
            await d.join(f"second join v{version}", "a", member, version=version)
        await d.sync(f"sync v{min(version, 5)}", "a", member, 1, {member: b"mine"}, version=min(version, 5))
        await d.heartbeat(f"heartbeat v{min(version, 4)}", "a", member, 1, version=min(version, 4))
        await d.describe(f"describe v{min(version, 5)}", "a", version=min(version, 5))
        await d.leave(f"leave v{min(version, 5)}", "a", (member, None), version=min(version, 5))
        await d.describe(f"describe once empty v{min(version, 5)}", "a", version=min(version, 5))


@dialogue
async def two_members_share(d: Dialogue) -> None:
    a, b = await stable_pair(d)
    await d.describe("described", "a")
    await d.sync("a syncs again", "a", a, 2, {a: b"other", b: b"other"})
    await d.sync("b syncs again", "b", b, 2)
    await d.leave("b leaves", "b", (b, None))
    await d.heartbeat("a hears of it", "a", a, 2)
    await d.sync("a syncs in vain", "a", a, 2)
    await d.join("a joins alone", "a", a)
    await d.heartbeat("while its assignment is awaited", "a", a, 3)
    await d.commit("commit before the assignment", "a", a, 3)
    await d.sync("a syncs alone", "a", a, 3, {a: b"all"})


@dialogue
async def wrong_names_and_generations(d: Dialogue) -> None:
    await d.heartbeat("heartbeat of no group", "a", "nobody", 1)
    await d.sync("sync of no group", "a", "nobody", 1)
    await d.leave("leave of no group", "a", ("nobody", None))
    await d.leave("leave of no group v0", "a", ("nobody", None), version=0)
    await d.join("join of no group with an id", "a", "nobody")
    await d.commit("commit of no group with a generation", "a", "nobody", 1)
    await d.describe("no group", "a")
    a, _ = await stable_pair(d)
    await d.heartbeat("unknown member", "c", "nobody", 2)
    await d.heartbeat("old generation", "a", a, 1)
    await d.heartbeat("generation to come", "a", a, 3)
    await d.sync("unknown member syncs", "c", "nobody", 2)
    await d.sync("old generation syncs", "a", a, 1)
    await d.join("unknown member joins", "c", "nobody")
    await d.leave("unknown member leaves", "c", ("nobody", None))
    await d.leave("unknown member leaves v2", "c", ("nobody", None), version=2)
    await d.sync("another protocol type", "a", a, 2, protocol_type="connect")
    await d.sync("another protocol", "a", a, 2, protocol_name="sticky")
    await d.sync("no protocol type", "a", a, 2, protocol_type=None)
    await d.sync("no protocol name", "a", a, 2, protocol_name=None)
    await d.heartbeat("unknown instance", "a", a, 2, group_instance_id="i")


@dialogue
async def empty_group_id(d: Dialogue) -> None:
    d.group = ""
    await d.join("join", "a")
    await d.sync("sync", "a", "m", 1)
    await d.heartbeat("heartbeat", "a", "m", 1)
    await d.leave("leave", "a", ("m", None))
    await d.leave("leave v1", "a", ("m", None), version=1)
    await d.commit("commit", "a", "", -1)
    await d.fetch("fetch", "a", 0)
    await d.ask("delete", "a", DELETE_GROUPS, 2, groups_names=("",))
    m = load_payload_module(OFFSET_DELETE, 0, EntityType.request)
    topic = m.OffsetDeleteRequestTopic(name=TOPIC, partitions=(m.OffsetDeleteRequestPartition(partition_index=0),))
    await d.ask("delete offsets", "a", OFFSET_DELETE, 0, topics=(topic,))


@dialogue
async def joins_that_do_not_fit(d: Dialogue) -> None:
    await d.join("session too short", "a", session_ms=499)
    await d.join("session too long", "a", session_ms=1_800_001)
    await d.join("no protocols", "a", protocols=[])
    await d.join("no protocol type", "a", protocol_type="")
    await d.join("no protocols v0", "a", protocols=[], version=0)
    a = await d.member("a", protocols=[("range", b"r"), ("sticky", b"s")])
    await d.join("a joins", "a", a, protocols=[("range", b"r"), ("sticky", b"s")])
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    await d.join("another protocol type", "b", protocol_type="connect")
    await d.join("another protocol", "b", protocols=[("round", b"")])
    await d.join("a member with other protocols", "a", a, protocols=[("round", b"")])
    b = await d.member("b", protocols=[("sticky", b"s"), ("round", b"r")])
    b_joins = d.joining("b", b, protocols=[("sticky", b"s"), ("round", b"r")])
    await d.until("PreparingRebalance", 2)
    await d.join("both agree on sticky", "a", a, protocols=[("range", b"r"), ("sticky", b"s")])
    await d.note("b as well", b_joins)


@dialogue
async def rejoining_a_stable_group(d: Dialogue) -> None:
    _, b = await stable_pair(d)
    await d.join("a follower with the same metadata", "b", b)
    await d.describe("nothing moved", "b")
    b_joins = d.joining("b", b, protocols=[("range", subscription("other"))])
    await d.until("PreparingRebalance", 2)
    await d.describe("new metadata makes a rebalance", "x")
    await d.leave("b leaves while it waits", "x", (b, None))
    await d.note("b's join", b_joins)


@dialogue
async def the_leader_rejoins(d: Dialogue) -> None:
    a, b = await stable_pair(d)
    a_joins = d.joining("a", a)
    await d.until("PreparingRebalance", 2)
    await d.join("b follows", "b", b)
    await d.note("a leads", a_joins)
    await d.join("a again before its sync", "a", a)
    await d.join("b again before its sync", "b", b)
    b_syncs = d.syncing("b", b, 3)
    a_joins = d.joining("a", a, protocols=[("range", b"\0\1")])
    await d.note("b's sync is called off", b_syncs)
    await d.until("PreparingRebalance", 2)
    await d.sync("b syncs in vain", "b", b, 3)
    await d.join("b joins", "b", b)
    await d.note("a leads generation 4", a_joins)


@dialogue
async def a_member_that_falls_silent(d: Dialogue) -> None:
    a = await d.member("a", session_ms=700)
    await d.join("a joins", "a", a, session_ms=700)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    await d.until("Empty")
    await d.heartbeat("too late", "a", a, 1)
    await d.sync("too late to sync", "a", a, 1)
    await d.join("too late to join", "a", a)
    await d.commit("too late to commit", "a", a, 1)
    await d.describe("empty", "a")


@dialogue
async def a_member_that_does_not_rejoin(d: Dialogue) -> None:
    a = await d.member("a", rebalance_ms=600)
    await d.join("a joins", "a", a, rebalance_ms=600)
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    b = await d.member("b", rebalance_ms=600)
    await d.join("b joins and waits for a", "b", b, rebalance_ms=600)
    await d.sync("b has it all", "b", b, 2, {b: b"all"})
    await d.heartbeat("a is out", "a", a, 2)


@dialogue
async def a_member_that_does_not_sync(d: Dialogue) -> None:
    a = await d.member("a", rebalance_ms=600)
    await d.join("a joins", "a", a, rebalance_ms=600)
    await d.until("Empty")
    await d.sync("a syncs too late", "a", a, 1, {a: b"all"})


@dialogue
async def a_pending_member(d: Dialogue) -> None:
    p = await d.member("p", session_ms=700)
    await d.heartbeat("a pending member's heartbeat", "p", p, 0)
    await d.sync("its sync", "p", p, 0)
    await d.commit("its commit", "p", p, 0)
    await d.leave("it leaves", "p", (p, None))
    await d.join("it is unknown", "p", p)
    p = await d.member("p", session_ms=700)
    a = await d.member("a")
    await d.join("a waits until p joins or is given up", "a", a)


@dialogue
async def a_full_group(d: Dialogue) -> None:
    a = (await d.join("a joins", "a", version=3)).member_id
    await d.sync("a syncs", "a", a, 1, {a: b"all"})
    b_joins, c_joins = (d.joining(name, version=3) for name in "bc")
    await d.until("PreparingRebalance", 3)
    a_joins = d.joining("a", a, version=3)
    for pending in (b_joins, c_joins, a_joins):
        await asyncio.wait_for(pending, DEADLINE_S)
    await d.join("a fourth v3", "e", version=3)
    await d.join("a fourth v9", "e")


@dialogue
async def static_members(d: Dialogue) -> None:
    first = await d.join("joins by its name", "a", group_instance_id="one")
    a = first.member_id
    await d.sync("syncs", "a", a, 1, {a: b"all"}, group_instance_id="one")
    again = await d.join("restarted, v9", "b", group_instance_id="one")
    b = again.member_id
    await d.heartbeat("the one before is fenced", "a", a, 1, group_instance_id="one")
    await d.sync("fenced", "a", a, 1, group_instance_id="one")
    await d.commit("fenced commit", "a", a, 1, group_instance_id="one")
    await d.join("fenced join", "a", a, group_instance_id="one")
    await d.leave("fenced leave", "a", (a, "one"))
    await d.heartbeat("without its name only unknown", "a", a, 1)
    await d.heartbeat("the new one lives", "b", b, 1, group_instance_id="one")
    await d.sync("and gets what it had", "b", b, 1, group_instance_id="one")
    await d.describe("described", "b")
    old = await d.join("restarted, v8", "c", group_instance_id="one", version=8)
    await d.sync("as a follower of who it was", "c", old.member_id, 1, group_instance_id="one")
    await d.leave("an administrator removes it", "x", ("", "one"))
    await d.leave("and again", "x", ("", "one"))
    await d.leave("and nobody", "x", ("", None))
    await d.describe("empty", "x")


@dialogue
async def a_static_follower_restarts(d: Dialogue) -> None:
    first = await d.join("a", "a", group_instance_id="a")
    a = first.member_id
    b_joins = d.joining("b", group_instance_id="b")
    await d.until("PreparingRebalance", 2)
    await d.join("a again", "a", a, group_instance_id="a")
    b = (await d.note("b", b_joins)).member_id
    b_syncs = d.syncing("b", b, 2, group_instance_id="b")
    await d.sync("a syncs", "a", a, 2, {a: b"part a", b: b"part b"}, group_instance_id="a")
    await d.note("b syncs", b_syncs)
    new = await d.join("b restarts", "c", group_instance_id="b")
    await d.sync("b has its part", "c", new.member_id, 2, group_instance_id="b")
    await d.heartbeat("a was not bothered", "a", a, 2, group_instance_id="a")
    await d.join(
        "b restarts with another subscription",
        "d",
        group_instance_id="b",
        protocols=[("range", subscription("other"))],
    )
    await d.heartbeat("a is still not bothered", "a", a, 2, group_instance_id="a")


@dialogue
async def a_static_member_restarts_during_a_rebalance(d: Dialogue) -> None:
    first = await d.join("a", "a", group_instance_id="a")
    a = first.member_id
    await d.sync("a syncs", "a", a, 1, {a: b"all"}, group_instance_id="a")
    b_joins = d.joining("b", group_instance_id="b")
    await d.until("PreparingRebalance", 2)
    c_joins = d.joining("c", group_instance_id="b")
    await d.note("the waiting one is fenced", b_joins)
    await d.join("a joins", "a", a, group_instance_id="a")
    b = (await d.note("the new one is in", c_joins)).member_id
    b_syncs = d.syncing("c", b, 2, group_instance_id="b")
    await d.until("CompletingRebalance")
    e_joins = d.joining("e", group_instance_id="b")
    await d.note("the syncing one is fenced or called off", b_syncs)
    await d.until("PreparingRebalance", 2)
    await d.join("a joins once more", "a", a, group_instance_id="a")
    await d.note("and it is in", e_joins)
