"""The walk on the running kernel, in namespaces that the test makes itself."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError, InputError, NotPermitted
from kvmenc.link import look
from kvmenc.link.kernel import LiveKernel
from kvmenc.link.namespace import inside
from tests.link import transfer
from tests.link.lab import HERE, THERE, THERE6, Lab, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.link import Link

SHORT_S = 0.05
TBF_100M = ("qdisc", "replace", "dev", "v0", "root", "tbf", "rate", "100mbit", "burst", "64kb",
            "latency", "50ms")  # fmt: skip


def near(lab: Lab, host: str) -> Link:
    return look(host, lab.near, SHORT_S)


def devices(link: Link) -> list[tuple[str, str | None]]:
    return [(one.name, one.above) for one in link.devices]


def test_a_real_transfer_through_tbf_gets_the_goodput_that_is_predicted(lab: Lab) -> None:
    lab.tc(*TBF_100M)
    link = look(THERE, lab.near, SHORT_S)
    assert link.limited_by
    assert link.limited_by.startswith("tbf ")
    assert link.goodput_bytes_per_s == pytest.approx(12.5e6 * 1448 / 1514, rel=0.001)
    assert transferred(lab, THERE) == pytest.approx(link.goodput_bytes_per_s, rel=0.1)


def test_a_real_transfer_over_ipv6_through_htb_and_vxlan_likewise(lab: Lab) -> None:
    vxlan(lab)
    lab.tc("qdisc", "add", "dev", "v0", "root", "handle", "1:", "htb", "default", "10")
    for parent, name, rate, ceil in (("1:", "1:1", "80", "90"), ("1:1", "1:10", "40", "95")):
        lab.tc("class", "add", "dev", "v0", "parent", parent, "classid", name, "htb",
               "rate", f"{rate}mbit", "ceil", f"{ceil}mbit")  # fmt: skip
    link = near(lab, "fd99::2")
    assert link.limited_by == "htb class 1:1 of v0"  # its rate: it has nobody to borrow from
    assert link.limits[0].rate_bytes_per_s == 10e6
    assert (link.mtu_bytes, link.limits[0].payload_bytes) == (1450, 1450 - 40 - 32)
    assert link.devices[1].shaping[0].guaranteed_bytes_per_s == 5e6
    assert transferred(lab, "fd99::2") == pytest.approx(link.goodput_bytes_per_s, rel=0.1)


def transferred(lab: Lab, host: str) -> float:
    """Bytes per second that a receiver at the far end counts."""
    program = [sys.executable, str(Path(transfer.__file__))]
    inside = ["ip", "netns", "exec"]
    with subprocess.Popen(
        [*inside, lab.far, *program, "receive", "7777", "2"], stdout=subprocess.PIPE, text=True
    ) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        with subprocess.Popen([*inside, lab.near, *program, "send", host, "7777"]) as sender:
            counted = receiver.stdout.readline()
            receiver.wait()
            assert sender.wait() == 0
    return float(counted)


def vxlan(lab: Lab) -> None:
    """A tunnel from v0 to v1, with addresses of its own."""
    for netns, device, remote, own in ((lab.near, "v0", THERE, 1), (lab.far, "v1", HERE, 2)):
        run("ip", "-n", netns, "link", "add", "x0", "type", "vxlan", "id", "42", "remote", remote,
            "dstport", "4789", "dev", device)  # fmt: skip
        run("ip", "-n", netns, "addr", "add", f"fd99::{own}/64", "dev", "x0", "nodad")
        run("ip", "-n", netns, "link", "set", "x0", "up")


def test_the_load_of_others_is_seen_and_taken_off(lab: Lab) -> None:
    """100 packets of 1,042 bytes (headers in it) in 50 ms each, as well as sleep keeps time."""
    lab.tc(*TBF_100M)
    with sending(lab, 1000):
        link = look(THERE, lab.near, 0.5)
    (limit,) = link.limits
    assert limit.load_bytes_per_s == pytest.approx(link.devices[0].load_bytes_per_s)
    assert 0.3e6 < limit.load_bytes_per_s < 2.5e6
    free = limit.rate_bytes_per_s - limit.load_bytes_per_s
    assert link.goodput_bytes_per_s == pytest.approx(free * 1448 / 1514)


@contextmanager
def sending(lab: Lab, size_bytes: int) -> Iterator[None]:
    program = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"data, to = bytes({size_bytes}), ('{THERE}', 9)\n"
        "s.sendto(data, to)\n"
        "print('sent', flush=True)\n"
        "while True:\n"
        "    for _ in range(100): s.sendto(data, to)\n"
        "    time.sleep(0.05)\n"
    )
    with subprocess.Popen(
        ["ip", "netns", "exec", lab.near, sys.executable, "-c", program], stdout=subprocess.PIPE
    ) as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        yield
        sender.kill()


def test_nothing_is_changed_in_the_namespace_nor_outside(lab: Lab) -> None:
    lab.tc(*TBF_100M)
    vxlan(lab)
    own = Path("/proc/self/ns/net").readlink()
    outside = run("ip", "-d", "link"), run("tc", "qdisc"), run("ip", "netns")
    before = lab.all_that_is_set()
    for host in (THERE, THERE6, "fd99::2"):
        near(lab, host)
    assert lab.all_that_is_set() == before
    assert (run("ip", "-d", "link"), run("tc", "qdisc"), run("ip", "netns")) == outside
    assert Path("/proc/self/ns/net").readlink() == own


def test_the_burst_of_tbf_is_the_one_that_was_set(lab: Lab) -> None:
    lab.tc(*TBF_100M)
    (shaping,) = near(lab, THERE).devices[0].shaping
    assert shaping.rate_bytes_per_s == 12.5e6
    assert shaping.burst_bytes == pytest.approx(64 * 1024, rel=0.01)


def test_rates_over_32_bits_are_read(lab: Lab) -> None:
    lab.tc("qdisc", "add", "dev", "v0", "root", "tbf", "rate", "100gbit", "burst", "4mb", "limit",
           "10mb")  # fmt: skip
    assert near(lab, THERE).limits[0].rate_bytes_per_s == 12.5e9


def test_macvlan_is_followed_to_the_device_below(lab: Lab) -> None:
    lab.tc(*TBF_100M)
    lab.ip("link", "add", "m0", "link", "v0", "type", "macvlan", "mode", "bridge")
    lab.ip("addr", "add", "203.0.113.1/24", "dev", "m0")
    lab.ip("link", "set", "m0", "up")
    link = near(lab, "203.0.113.2")
    assert devices(link) == [("m0", None), ("v0", "m0")]
    assert [one.device for one in link.limits] == ["v0"]


def test_a_bridge_is_followed_to_the_port_that_learned_the_address(lab: Lab) -> None:
    lab.ip("link", "add", "br0", "type", "bridge")
    lab.ip("link", "add", "t0", "type", "veth", "peer", "name", "t1")
    lab.ip("addr", "flush", "dev", "v0")
    for device in ("v0", "t0"):
        lab.ip("link", "set", device, "master", "br0", "up")
    lab.ip("addr", "add", f"{HERE}/24", "dev", "br0")
    lab.ip("link", "set", "br0", "up")
    assert devices(near(lab, THERE)) == [("br0", None)]
    run(
        "ip",
        "netns",
        "exec",
        lab.near,
        sys.executable,
        "-c",
        f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(40):
    s.sendto(b"", ("{THERE}", 9))
    if "0x2" in open("/proc/net/arp").read(): break
    time.sleep(0.05)
""",
    )
    link = near(lab, THERE)
    assert devices(link) == [("br0", None), ("v0", "br0")]
    assert link.devices[0].detail == "by port v0 of 2"


def test_a_veth_whose_peer_is_in_a_bridge_is_followed_there(lab: Lab) -> None:
    lab.ip("link", "add", "br0", "type", "bridge")
    lab.ip("link", "add", "t0", "type", "veth", "peer", "name", "t1")
    lab.ip("addr", "flush", "dev", "v0")
    for device in ("v0", "t1"):
        lab.ip("link", "set", device, "master", "br0", "up")
    lab.ip("addr", "add", f"{HERE}/24", "dev", "t0")
    for device in ("t0", "br0"):
        lab.ip("link", "set", device, "up")
    assert devices(near(lab, THERE)) == [("t0", None), ("br0", "t0"), ("v0", "br0")]


def test_both_ways_of_a_multipath_route_are_named_and_one_is_looked_at(lab: Lab) -> None:
    lab.ip("link", "add", "m0", "link", "v0", "type", "macvlan", "mode", "bridge")
    lab.ip("addr", "add", "203.0.113.1/28", "dev", "m0")
    lab.ip("link", "set", "m0", "up")
    lab.ip("route", "add", "203.0.113.128/25", "nexthop", "via", THERE, "dev", "v0", "weight", "2",
           "nexthop", "via", "203.0.113.2", "dev", "m0")  # fmt: skip
    link = near(lab, "203.0.113.129")
    hops = {(it.gateway, it.device, it.weight) for it in link.route.next_hops}
    assert hops == {(THERE, "v0", 2), ("203.0.113.2", "m0", 1)}
    assert (link.route.gateway, link.route.device) in {(it[0], it[1]) for it in hops}
    assert link.notes[0].startswith("Several ways, ")


def test_policy_routing_is_the_kernels_answer(lab: Lab) -> None:
    lab.ip("rule", "add", "to", "203.0.113.9", "table", "99")
    lab.ip("route", "add", "203.0.113.0/24", "via", THERE, "mtu", "1400")
    lab.ip("route", "add", "203.0.113.0/24", "via", "198.51.100.9", "table", "99")
    plain, ruled = near(lab, "203.0.113.8"), near(lab, "203.0.113.9")
    assert (plain.route.gateway, plain.mtu_bytes) == (THERE, 1400)
    assert (ruled.route.gateway, ruled.mtu_bytes) == ("198.51.100.9", 1500)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("blackhole", "a blackhole route"),
        ("unreachable", "an unreachable route"),
        ("prohibit", "a prohibit route"),
    ],
)
@pytest.mark.parametrize("host", ["203.0.113.1", "fd22::1"])
def test_a_route_that_forbids_is_one_line(lab: Lab, kind: str, why: str, host: str) -> None:
    lab.ip("route", "add", kind, host)
    with pytest.raises(HostError, match=f"^{host} cannot be reached from here: {why}$"):
        near(lab, host)


def test_without_a_route_it_is_one_line(lab: Lab) -> None:
    with pytest.raises(HostError, match=r"^203\.0\.113\.1 cannot be reached from here: no route$"):
        near(lab, "203.0.113.1")


def test_the_zone_of_a_link_local_address_counts_inside_the_namespace(lab: Lab) -> None:
    assert near(lab, "fe80::7%v0").route.device == "v0"
    with pytest.raises(InputError, match="there is no such device"):
        near(lab, "fe80::7%eth0")


def test_the_namespaces_own_address_is_this_machine(lab: Lab) -> None:
    link = near(lab, HERE)
    assert link.route.local
    assert link.goodput_bytes_per_s is None


def test_a_namespace_by_path_is_the_same(lab: Lab) -> None:
    assert look(THERE, f"/run/netns/{lab.near}", SHORT_S).route == near(lab, THERE).route


@pytest.mark.parametrize("netns", ["no-such", "/no/such", "/etc/passwd", "/", "a\0b"])
def test_what_is_no_namespace_is_one_line(netns: str) -> None:
    with pytest.raises((InputError, NotPermitted), match="namespace"):
        look("192.0.2.1", netns, SHORT_S)


AS_NOBODY = """
import os
from kvmenc.link import look
from kvmenc.link.kernel import LiveKernel
from kvmenc.link.namespace import inside
os.setgroups([])
os.setuid(65534)
"""


def test_without_permission_to_enter_it_is_one_line(lab: Lab) -> None:
    program = f"{AS_NOBODY}look('{THERE}', '{lab.near}')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert f"NotPermitted: entering network namespace '{lab.near}': EPERM" in done.stderr


def test_all_but_entering_works_without_root(lab: Lab) -> None:
    lab.tc(*TBF_100M)
    program = f"{AS_NOBODY}print(look('{THERE}', seconds=0).limited_by)"
    limited_by = run("ip", "netns", "exec", lab.near, sys.executable, "-c", program)
    assert limited_by.startswith("tbf ")
    assert limited_by.endswith(" of v0\n")


def test_a_plain_bridge_and_a_tap_have_no_speed_and_break_nothing(lab: Lab) -> None:
    lab.ip("tuntap", "add", "tap0", "mode", "tap")
    lab.ip("link", "add", "br0", "type", "bridge")
    lab.ip("link", "set", "tap0", "master", "br0", "up")
    lab.ip("addr", "add", "203.0.113.1/24", "dev", "br0")
    lab.ip("link", "set", "br0", "up")
    link = near(lab, "203.0.113.2")
    assert devices(link) == [("br0", None), ("tap0", "br0")]
    assert link.limits == ()
    assert "tap0 is of kind tun: what lies below it is not followed." in link.notes


def test_ethtool_is_read_inside_the_namespace(lab: Lab) -> None:
    """The kernel's veth says 10 Gbit/s, which is why its word is not taken for a limit."""

    def speed() -> int | None:
        with LiveKernel() as kernel:
            return kernel.speed_mbit_per_s("v0")

    assert inside(lab.near, speed) == 10_000
