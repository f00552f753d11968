"""Which node gets which broker and which ZooKeeper server."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from raykafka.config.cluster import ClusterConfig, parse_cluster_config
from raykafka.deploy.folder import ClusterFolder, Deployed
from raykafka.deploy.placement import bootstrap, place, seats_of_roster, zookeeper_settings
from raykafka.deploy.roster import Roster, Visit, one_for_each, plan_brokers, plan_zookeepers
from raykafka.errors import ConfigError, DeployError


def _config(managed: dict[str, Any] | None = None, **brokers: Any) -> ClusterConfig:
    return parse_cluster_config(
        {
            "cluster": "c",
            "zookeeper": {"managed": {"servers": 3, "host": "", **(managed or {})}},
            "brokers": {"nodes": "all", "listeners": "INSIDE://:9092,OUTSIDE://:9192", "link_host": "", **brokers},
        },
        "file.yaml",
    )


def _node(number: int, **more: Any) -> Visit:
    return Visit(f"ray-{number}", f"10.0.0.{number}", f"mark-{number}", **more)


def _planned(config: ClusterConfig, visits: list[Visit], before: Roster | None = None) -> Roster:
    return plan_zookeepers(config, plan_brokers(config, before or Roster(), visits), visits)


def test_nodes_get_brokers_in_the_order_of_their_addresses() -> None:
    roster = _planned(_config(), [_node(100), _node(9), _node(10)])
    assert roster.brokers == {0: "mark-9", 1: "mark-10", 2: "mark-100"}
    assert roster.zookeepers == {1: "mark-9", 2: "mark-10", 3: "mark-100"}
    assert roster.addresses == {"mark-9": "10.0.0.9", "mark-10": "10.0.0.10", "mark-100": "10.0.0.100"}


def test_a_node_that_joins_gets_a_new_id_while_the_id_of_one_that_is_away_stays_its_own() -> None:
    before = _planned(_config(), [_node(1), _node(2), _node(3)])
    roster = plan_brokers(_config(), before, [_node(1), _node(3), _node(4)])
    assert roster.brokers == {0: "mark-1", 1: "mark-2", 2: "mark-3", 3: "mark-4"}
    assert roster.addresses["mark-2"] == "10.0.0.2"
    assert roster.zookeepers == before.zookeepers


def test_a_node_keeps_its_broker_under_another_ray_id_and_address() -> None:
    before = _planned(_config(), [_node(1), _node(2), _node(3)])
    moved = dataclasses.replace(_node(2), node_id="ray-new", ip="10.0.0.77")
    roster = plan_brokers(_config(), before, [_node(1), _node(3), moved])
    assert roster.brokers == before.brokers
    assert roster.addresses["mark-2"] == "10.0.0.77"
    assert seats_of_roster(roster, [_node(1), _node(3), moved]).brokers[1].node_id == "ray-new"


def test_where_no_roster_is_left_the_data_says_who_is_who() -> None:
    visits = [_node(1, brokers=(2,), zookeepers=(3,)), _node(2, brokers=(0,)), _node(3, zookeepers=(1,)), _node(4)]
    roster = _planned(_config(), visits)
    assert roster.brokers == {0: "mark-2", 1: "mark-3", 2: "mark-1", 3: "mark-4"}
    assert roster.zookeepers == {1: "mark-3", 2: "mark-2", 3: "mark-1"}


def test_a_node_without_a_broker_gets_no_id_whose_data_is_elsewhere() -> None:
    before = _planned(_config(), [_node(1), _node(2), _node(3)])
    choice = _config(nodes={"resource": "disk"})
    drained = plan_brokers(choice, before, [_node(n, resources={"disk": n != 2}, brokers=(n - 1,)) for n in (1, 2, 3)])
    assert drained.brokers == {0: "mark-1", 2: "mark-3"}
    disks = [_node(n, resources={"disk": n != 2}, brokers=(n - 1,)) for n in (1, 2, 3)]
    joined = plan_brokers(choice, drained, [*disks, _node(4, resources={"disk": 1})])
    assert joined.brokers == {0: "mark-1", 2: "mark-3", 3: "mark-4"}
    back = plan_brokers(_config(), joined, [*disks, _node(4)])
    assert back.brokers == {0: "mark-1", 1: "mark-2", 2: "mark-3", 3: "mark-4"}


def test_nodes_are_chosen_by_resource_and_labels() -> None:
    nodes = [_node(1, resources={"kafka": 1.0}), _node(2, labels={"disk": "ssd"}), _node(3)]
    assert plan_brokers(_config(nodes={"resource": "kafka"}), Roster(), nodes).brokers == {0: "mark-1"}
    assert plan_brokers(_config(nodes={"labels": {"disk": "ssd"}}), Roster(), nodes).brokers == {0: "mark-2"}


def test_zookeeper_needs_its_nodes_and_keeps_its_number() -> None:
    with pytest.raises(DeployError, match="3 ZooKeeper servers need 3 nodes, and there are 2"):
        _planned(_config(), [_node(1), _node(2)])
    before = _planned(_config(), [_node(1), _node(2), _node(3)])
    with pytest.raises(DeployError, match="number can't be changed to 5"):
        plan_zookeepers(_config({"servers": 5}), before, [_node(n) for n in range(1, 6)])


def test_a_node_that_began_anew_counts_once_and_a_copied_folder_not_at_all() -> None:
    before = _planned(_config(), [_node(1), _node(2), _node(3)])
    anew = dataclasses.replace(_node(2), node_id="ray-new")
    assert one_for_each([_node(1), _node(2), anew], before) == ([_node(1), anew], [])
    copy = dataclasses.replace(_node(2), node_id="ray-4", ip="10.0.0.4")
    for visits in ([_node(2), copy], [copy, _node(2)]):
        kept, problems = one_for_each(visits, before)
        assert kept == [_node(2)]
        assert "10.0.0.2 and 10.0.0.4 have data folders of one mark, and 10.0.0.4 is left out" in problems[0]
    assert one_for_each([copy], before) == ([copy], [])


def test_servers_listen_on_their_own_nodes_and_brokers_begin_with_their_own_zookeeper(tmp_path: Any) -> None:
    config = _config(rack_label="zone")
    visits = [_node(n, labels={"zone": f"z{n}"}) for n in (1, 2, 3, 4)]
    seats = seats_of_roster(_planned(config, visits), visits)
    placements = {(p.role, p.actor_id): p for p in place(config, ClusterFolder(tmp_path), seats, b"s")}
    assert placements["zookeeper", 2].settings["servers"] == {n: f"10.0.0.{n}:2888:3888" for n in (1, 2, 3)}
    assert placements["zookeeper", 2].settings["host"] == "10.0.0.2"
    broker = placements["broker", 1]
    assert (broker.node_id, broker.settings["rack"]) == ("ray-2", "z2")
    assert broker.settings["listeners"] == broker.settings["advertised"]
    assert broker.settings["advertised"] == [["INSIDE", "10.0.0.2", 9092], ["OUTSIDE", "10.0.0.2", 9192]]
    assert broker.settings["zookeeper"]["hosts"] == "10.0.0.2:2181,10.0.0.3:2181,10.0.0.1:2181/c"
    assert zookeeper_settings(config, seats, 3).hosts == "10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181/c"
    assert ("10.0.0.2", 9292, "the link port of broker 1") in broker.ports()
    assert ("10.0.0.3", 3888, "the election port of ZooKeeper server 3") in placements["zookeeper", 3].ports()
    assert bootstrap(placements.values(), "OUTSIDE") == ",".join(f"10.0.0.{n}:9192" for n in (1, 2, 3, 4))


def test_a_broker_whose_node_is_away_has_its_address_and_no_node() -> None:
    roster = _planned(_config(), [_node(1), _node(2), _node(3)])
    seat = seats_of_roster(roster, [_node(1), _node(3)]).brokers[1]
    assert (seat.node_id, seat.ip) == ("", "10.0.0.2")


def test_a_record_survives_its_file_and_an_older_one_is_read(tmp_path: Any) -> None:
    folder = ClusterFolder(tmp_path)
    record = Deployed(_config(), 7, _planned(_config(), [_node(1), _node(2), _node(3)]))
    folder.write_record(record)
    assert folder.record() == record
    assert (tmp_path / "cluster.json").stat().st_mode & 0o777 == 0o600
    assert Deployed.from_json(_config().to_json(), "an older file") == Deployed(_config())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"brokers": {"nodes": "some"}}, "brokers.nodes must be all, or resource: NAME"),
        ({"brokers": {"nodes": "all"}}, "other nodes can't reach INSIDE://127.0.0.1: leave the host empty"),
        ({"brokers": {"nodes": "all", "listeners": "A://0.0.0.0:1"}}, "other nodes can't reach A://0.0.0.0"),
        ({"brokers": {"nodes": "all", "listeners": "A://:1"}}, "other nodes can't reach link_host 127.0.0.1"),
        (
            {"brokers": {"nodes": "all", "listeners": "A://:1", "link_host": ""}},
            "other nodes can't reach zookeeper.managed.host 127.0.0.1",
        ),
        ({"brokers": {"listeners": "A://:1"}}, "listeners has no host for A"),
        ({"brokers": {"rack_label": "zone"}}, "rack_label names a label of nodes, and nodes is not set"),
        ({"brokers": {"nodes": {"resurce": "a"}}}, "did you mean resource?"),
        ({"zookeeper": {"managed": {"nodes": "all"}}}, "brokers.nodes is not"),
    ],
)
def test_what_cannot_work_on_several_nodes_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cluster_config(data, "file.yaml")
    assert message in str(caught.value)


def test_each_node_gives_its_own_cores_to_its_broker(tmp_path: Path) -> None:
    config, visits = _config(), [_node(1, cores=4), _node(2, cores=40), _node(3)]
    seats = seats_of_roster(_planned(config, visits), visits)
    placements = place(config, ClusterFolder(tmp_path), seats, b"s" * 32)
    assert [p.settings["replica_actors"] for p in placements if p.role == "broker"] == [4, 16, 1]
