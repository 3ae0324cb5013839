"""The walk, on recorded links: kinds and speeds that the machine at hand may not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvmenc.errors import HostError, InputError
from kvmenc.link.assemble import assemble
from kvmenc.link.look import observe
from kvmenc.link.messages import Message, net_devices
from kvmenc.link.messages import attribute as attribute_of
from kvmenc.link.resolve import Destination
from tests.link.iproute2 import REQUESTS
from tests.link.recorded import GBIT, ROOT, RecordedKernel, attribute, decode, link, route, tc

if TYPE_CHECKING:
    from kvmenc.link.model import Link

TO = Destination("192.0.2.7")
MAC = "02:00:00:00:00:07"


def look(kernel: RecordedKernel, to: Destination = TO) -> Link:
    return assemble("host2", None, to, observe(kernel, to, 0.001))


def names(found: Link) -> list[tuple[str, str | None]]:
    return [(one.name, one.above) for one in found.devices]


def test_a_plain_device_gives_its_speed_less_headers() -> None:
    found = look(RecordedKernel(link(2, "eth0"), route(2), speeds={"eth0": 1000}))
    (limit,) = found.limits
    assert (limit.device, limit.by, limit.packet_bytes) == ("eth0", "speed", 1538)
    assert found.goodput_bytes_per_s == pytest.approx(GBIT * 1448 / 1538)
    assert found.limited_by == "speed of eth0"


def test_an_unknown_speed_is_unknown_and_not_0() -> None:
    found = look(RecordedKernel(link(2, "eth0"), route(2)))
    assert found.devices[0].speed_bytes_per_s is None
    assert (found.goodput_bytes_per_s, found.limited_by) == (None, None)
    assert "Speed not told by eth0: taken to be no limit." in found.notes


def test_the_speed_that_veth_makes_up_is_not_believed() -> None:
    kernel = RecordedKernel(link(2, "v0", kind="veth"), route(2), speeds={"v0": 10_000})
    assert look(kernel).limits == ()


def test_what_is_sent_now_is_not_free() -> None:
    """The wire carries 24 bytes more per packet than the counter counts."""
    kernel = RecordedKernel(
        link(2, "eth0", sent=(10**9, 10**6)),
        route(2),
        later=link(2, "eth0", sent=(10**9 + 10_000, 10**6 + 10)),
        speeds={"eth0": 100_000},
    )
    found = look(kernel)
    seconds = found.sampled_ms / 1000
    assert found.devices[0].load_bytes_per_s == pytest.approx(10_000 / seconds)
    assert found.limits[0].load_bytes_per_s == pytest.approx((10_000 + 10 * 24) / seconds)
    free = 100 * GBIT - found.limits[0].load_bytes_per_s
    assert found.goodput_bytes_per_s == pytest.approx(free * 1448 / 1538)


def test_a_device_in_full_use_leaves_0() -> None:
    kernel = RecordedKernel(
        link(2, "eth0"), route(2), later=link(2, "eth0", sent=(10**12, 0)), speeds={"eth0": 10}
    )
    assert look(kernel).goodput_bytes_per_s == 0


def test_a_vlan_costs_4_bytes_on_the_device_below_and_none_of_the_mtu() -> None:
    vlan = {"IFLA_VLAN_ID": 42}
    links = link(2, "eth0") + link(3, "eth0.42", kind="vlan", data=vlan, link=2)
    found = look(RecordedKernel(links, route(3), speeds={"eth0": 1000, "eth0.42": 1000}))
    assert names(found) == [("eth0.42", None), ("eth0", "eth0.42")]
    assert found.devices[0].detail == "id 42"
    assert found.mtu_bytes == 1500
    assert [one.packet_bytes for one in found.limits] == [1500 + 14 + 4 + 24]


@pytest.mark.parametrize(
    ("name", "kind", "fact", "value"),
    [
        ("vlan", "vlan", "IFLA_VLAN_ID", 42),
        ("bond", "bond", "IFLA_BOND_MODE", 4),
        ("ab", "bond", "IFLA_BOND_MODE", 1),
    ],
)
def test_kinds_are_read_as_iproute2_writes_them(
    name: str, kind: str, fact: str, value: int
) -> None:
    (device,) = net_devices(decode(bytes.fromhex(REQUESTS[name]))).values()
    assert device.kind == kind
    assert attribute_of(device.data, fact) == value


def bonded(mode: int, second: dict[str, int], **data: int) -> RecordedKernel:
    """Two members of 10 and 1 Gbit/s."""
    good: dict[str, int] = {"IFLA_BOND_SLAVE_STATE": 0, "IFLA_BOND_SLAVE_MII_STATUS": 0}
    bond: dict[str, Any] = {
        "IFLA_BOND_MODE": mode,
        **{f"IFLA_BOND_{k}": v for k, v in data.items()},
    }
    links = (
        link(2, "eth0", slave=("bond", good), master=4)
        + link(3, "eth1", slave=("bond", good | second), master=4)
        + link(4, "bond0", kind="bond", data=bond)
    )
    return RecordedKernel(links, route(4), speeds={"eth0": 10_000, "eth1": 1000, "bond0": 7})


def test_a_bond_by_hash_gives_a_connection_one_member_and_all_of_them_the_sum() -> None:
    found = look(bonded(4, {}))
    assert found.devices[0].speed_bytes_per_s == 11 * GBIT
    assert found.devices[0].detail == "802.3ad, 2 of 2 in use: eth0, eth1"
    assert [(it.device, it.rate_bytes_per_s) for it in found.limits] == [
        ("eth1", GBIT),
        ("eth0", 10 * GBIT),
    ]
    assert "bond0 gives one connection one member: its tightest is taken." in found.notes


def test_a_bond_in_turn_spreads_a_connection_over_all() -> None:
    found = look(bonded(0, {}))
    assert [(it.device, it.rate_bytes_per_s) for it in found.limits] == [("bond0", 11 * GBIT)]


def test_only_the_active_member_of_a_pair_counts() -> None:
    found = look(bonded(1, {"IFLA_BOND_SLAVE_STATE": 1}, ACTIVE_SLAVE=2))
    assert names(found) == [("bond0", None), ("eth0", "bond0")]
    assert found.devices[0].detail == "active-backup, 1 of 2 in use: eth0"
    assert found.devices[0].speed_bytes_per_s == 10 * GBIT
    assert [it.device for it in found.limits] == ["eth0"]


@pytest.mark.parametrize("fault", [{"IFLA_BOND_SLAVE_MII_STATUS": 2}, {"IFLA_BOND_SLAVE_STATE": 1}])
def test_a_member_without_carrier_or_out_of_the_aggregate_does_not_count(
    fault: dict[str, int],
) -> None:
    assert [it.device for it in look(bonded(4, fault)).limits] == ["eth0"]


def test_a_bond_without_a_member_in_use_says_so() -> None:
    found = look(bonded(1, {}))
    assert found.goodput_bytes_per_s is None
    assert "bond0 has no member that can send." in found.notes


def test_a_vlan_on_a_bond_goes_down_to_every_member() -> None:
    kernel = bonded(2, {})
    kernel.first += link(5, "bond0.7", kind="vlan", data={"IFLA_VLAN_ID": 7}, link=4)
    kernel.choice = route(5)
    found = look(kernel)
    assert names(found) == [
        ("bond0.7", None), ("bond0", "bond0.7"), ("eth0", "bond0"), ("eth1", "bond0"),
    ]  # fmt: skip
    assert {one.packet_bytes for one in found.limits} == {1542}


def bridged(hardware: list[Message], ports: list[Message]) -> RecordedKernel:
    links = (
        link(2, "eth0", master=4)
        + link(3, "tap0", kind="tun", master=4)
        + link(4, "br0", kind="bridge")
    )
    speeds = {"eth0": 1000, "tap0": 10, "br0": 10}
    return RecordedKernel(links, route(4), hardware=hardware, ports=ports, speeds=speeds)


def neighbour(address: str, device: int = 4) -> Message:
    return {"ifindex": device, "attrs": [("NDA_DST", address), ("NDA_LLADDR", MAC)]}


def learned(port: int, state: int = 2) -> Message:
    return {"ifindex": port, "state": state, "attrs": [("NDA_LLADDR", MAC), ("NDA_MASTER", 4)]}


def test_the_port_behind_which_the_next_machine_was_seen_is_taken() -> None:
    found = look(bridged([neighbour("192.0.2.7")], [learned(2)]))
    assert names(found) == [("br0", None), ("eth0", "br0")]
    assert found.goodput_bytes_per_s == pytest.approx(GBIT * 1448 / 1538)


@pytest.mark.parametrize(
    ("hardware", "ports"),
    [
        ([], [learned(2)]),
        ([neighbour("192.0.2.8")], [learned(2)]),
        ([neighbour("192.0.2.7", device=9)], [learned(2)]),
        ([neighbour("192.0.2.7")], [learned(2, state=0x80)]),
    ],
)
def test_a_port_is_never_guessed(hardware: list[Message], ports: list[Message]) -> None:
    found = look(bridged(hardware, ports))
    assert names(found) == [("br0", None)]
    assert "br0 has 2 ports: which one leads there is not known yet." in found.notes


def test_a_vxlan_takes_its_overhead_from_the_mtu_and_from_the_rate_below() -> None:
    data = {"IFLA_VXLAN_ID": 9, "IFLA_VXLAN_GROUP": "192.0.2.99"}
    links = link(2, "eth0") + link(3, "vx", kind="vxlan", data=data, mtu=9000)
    kernel = RecordedKernel(links, route(3), others={"192.0.2.99": route(2)}, speeds={"eth0": 1000})
    found = look(kernel)
    assert names(found) == [("vx", None), ("eth0", "vx")]
    assert found.mtu_bytes == 1450
    assert (found.limits[0].payload_bytes, found.limits[0].packet_bytes) == (1398, 1538)


def test_a_vxlan_goes_to_the_peer_that_was_learned_for_the_next_machine() -> None:
    data = {"IFLA_VXLAN_ID": 9, "IFLA_VXLAN_GROUP": "239.1.1.1"}
    links = link(2, "eth0") + link(3, "eth1") + link(4, "vx", kind="vxlan", data=data)
    peer = {"ifindex": 4, "attrs": [("NDA_LLADDR", MAC), ("NDA_DST", "192.0.2.99")]}
    kernel = RecordedKernel(
        links,
        route(4),
        others={"192.0.2.99": route(3)},
        hardware=[neighbour("192.0.2.7")],
        ports=[peer],
    )
    found = look(kernel)
    assert names(found) == [("vx", None), ("eth1", "vx")]
    assert found.devices[0].detail == "id 9 to 192.0.2.99"


def test_below_a_vxlan_tags_are_inside_and_the_next_machine_is_another() -> None:
    data = {"IFLA_VXLAN_ID": 9, "IFLA_VXLAN_GROUP": "192.0.2.99"}
    kernel = bridged([neighbour("192.0.2.1")], [learned(2)])
    kernel.first += link(6, "vx", kind="vxlan", data=data)
    kernel.first += link(7, "vx.5", kind="vlan", data={"IFLA_VLAN_ID": 5}, link=6)
    kernel.choice = route(7)
    kernel.others = {"192.0.2.99": route(4, gateway="192.0.2.1")}
    found = look(kernel)
    assert names(found) == [("vx.5", None), ("vx", "vx.5"), ("br0", "vx"), ("eth0", "br0")]
    assert (found.devices[-1].overhead_bytes, found.devices[-1].vlan_bytes) == (54, 0)
    assert found.mtu_bytes == 1446
    assert found.limits[0].packet_bytes == 1538


def test_a_vxlan_whose_peer_is_not_known_says_so() -> None:
    found = look(RecordedKernel(link(4, "vx", kind="vxlan", data={"IFLA_VXLAN_ID": 9}), route(4)))
    assert "vx has no peer known for that machine: the way below is not known." in found.notes


def test_a_vxlan_over_ipv6_takes_70_bytes() -> None:
    data = {"IFLA_VXLAN_ID": 9, "IFLA_VXLAN_GROUP6": "2001:db8::99"}
    links = link(2, "eth0") + link(3, "vx", kind="vxlan", data=data, mtu=1430)
    kernel = RecordedKernel(links, route(3), others={"2001:db8::99": route(2)})
    assert look(kernel).devices[1].overhead_bytes == 70


def test_a_team_gives_a_connection_one_of_the_members_that_are_up() -> None:
    links = (
        link(2, "eth0", master=5)
        + link(3, "eth1", master=5)
        + link(4, "eth2", master=5, flags=0)
        + link(5, "team0", kind="team")
    )
    found = look(RecordedKernel(links, route(5), speeds={"eth0": 1000, "eth1": 1000, "eth2": 1}))
    assert found.devices[0].detail == "team, 2 of 3 in use: eth0, eth1"
    assert [it.device for it in found.limits] == ["eth0", "eth1"]


def test_the_mtu_of_the_route_is_the_least_if_it_is() -> None:
    metrics = {"attrs": [("RTAX_MTU", 1400)]}
    found = look(RecordedKernel(link(2, "eth0"), route(2, metrics=metrics)))
    assert (found.mtu_bytes, found.route.mtu_bytes) == (1400, 1400)


def test_an_mtu_too_small_for_ipv6_is_one_clear_error() -> None:
    kernel = RecordedKernel(link(2, "eth0", mtu=1000), route(2))
    with pytest.raises(HostError, match="an MTU of 1000 on the way is no IPv6"):
        look(kernel, Destination("2001:db8::7"))


def test_shaping_that_is_tighter_than_the_wire_wins_and_counts_its_own_overhead() -> None:
    fq = tc("fq", 0x10000, ROOT, attribute(7, (10**7).to_bytes(4, "little")))
    kernel = RecordedKernel(link(2, "e"), route(2), speeds={"e": 1000}, queueing={2: fq})
    found = look(kernel)
    assert found.limited_by == "fq 1: maxrate of e"
    assert found.goodput_bytes_per_s == pytest.approx(1e7 * 1448 / 1514)
    assert [one.by for one in found.limits] == ["fq 1: maxrate", "speed"]


def test_both_ways_of_a_multipath_route_are_named() -> None:
    hops = [
        {"oif": 2, "hops": 0, "attrs": [("RTA_GATEWAY", "192.0.2.1")]},
        {"oif": 3, "hops": 2, "attrs": [("RTA_VIA", {"addr": "fe80::1"})]},
    ]
    kernel = RecordedKernel(
        link(2, "eth0") + link(3, "eth1"),
        route(2, gateway="192.0.2.1"),
        entry=route(2, multipath=hops),
    )
    found = look(kernel)
    assert [(it.gateway, it.device, it.weight) for it in found.route.next_hops] == [
        ("192.0.2.1", "eth0", 1),
        ("fe80::1", "eth1", 3),
    ]
    assert found.notes[0] == (
        "Several ways, 192.0.2.1 by eth0 (weight 1) or fe80::1 by eth1 (weight 3): "
        "a connection takes one; this is 192.0.2.1 by eth0."
    )


@pytest.mark.parametrize("kind", [6, 7, 8])
def test_a_route_that_forbids_is_a_host_error(kind: int) -> None:
    kernel = RecordedKernel(link(2, "eth0"), {**route(2), "type": kind})
    with pytest.raises(HostError, match=r"192\.0\.2\.7 cannot be reached from here: an? "):
        look(kernel)


@pytest.mark.parametrize("kind", [3, 5])
def test_a_broadcast_or_multicast_address_is_bad_input(kind: int) -> None:
    with pytest.raises(InputError, match="not one machine's"):
        look(RecordedKernel(link(2, "eth0"), {**route(2), "type": kind}))


def test_this_machine_itself_has_no_estimate() -> None:
    kernel = RecordedKernel(link(1, "lo", flags=0x49), {**route(1), "type": 2})
    found = look(kernel)
    assert found.route.local
    assert (found.goodput_bytes_per_s, found.mtu_bytes, found.devices) == (None, None, ())
    assert "memory" in found.notes[0]


def test_a_zone_names_the_device_by_name_or_number() -> None:
    kernel = RecordedKernel(link(2, "eth0"), route(2))
    for zone in ("eth0", "2"):
        assert look(kernel, Destination("fe80::1", zone=zone)).route.device == "eth0"
    with pytest.raises(InputError, match="fe80::1%eth9: there is no such device"):
        look(kernel, Destination("fe80::1", zone="eth9"))


def test_devices_in_a_ring_end_the_walk() -> None:
    links = link(2, "a", kind="macvlan", link=3) + link(3, "b", kind="macvlan", link=2)
    assert names(look(RecordedKernel(links, route(2)))) == [("a", None), ("b", "a")]


@pytest.mark.parametrize("kind", ["vlan", "macvlan", "veth"])
def test_what_lies_in_another_namespace_is_said(kind: str) -> None:
    """The index counts there; here it may be any device's."""
    links = link(2, "eth0", link=3, kind=kind, link_netnsid=0) + link(3, "other")
    found = look(RecordedKernel(links, route(2)))
    assert names(found) == [("eth0", None)]
    assert any("in another network namespace" in note for note in found.notes)


def test_a_tunnel_that_is_not_followed_is_said() -> None:
    found = look(RecordedKernel(link(2, "wg0", kind="wireguard"), route(2)))
    assert "wg0 is of kind wireguard: what lies below it is not followed." in found.notes


def test_a_device_that_is_down_is_said() -> None:
    found = look(RecordedKernel(link(2, "eth0", flags=0x1), route(2)))
    assert not found.devices[0].up
    assert "eth0 is down." in found.notes


def test_a_device_that_goes_meanwhile_is_one_clear_error() -> None:
    kernel = RecordedKernel(link(2, "eth0"), route(2), later=link(3, "eth1"))
    with pytest.raises(HostError, match="went while it was looked at"):
        look(kernel)
