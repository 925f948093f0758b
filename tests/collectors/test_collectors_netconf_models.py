"""YANG models as tables: golden replies of every model, what is odd about them, and notifications."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.netconf_events import event_of
from collectors.netconf_models import (
    IETF_INTERFACES,
    MODELS,
    addresses_of,
    announced,
    delays_of,
    interfaces_of,
    neighbours_of,
    queues_of,
    results_of,
    routes_of,
)
from collectors.netconf_xml import PREFIXES, parse_reply, plain
from twin.errors import DecodeError
from twin.records import (
    InterfaceAddress,
    InterfaceCounters,
    Neighbour,
    NetworkEvent,
    PathDelay,
    QueueCounters,
    Route,
)

NOW_NS = 1_800_000_000_000_000_000


def reply(body: str) -> bytes:
    return f'<rpc-reply xmlns="{PREFIXES["nc"]}" message-id="1"><data>{body}</data></rpc-reply>'.encode()


OC_INTERFACES = reply(
    f"""
<interfaces xmlns="{PREFIXES["oc-if"]}"><interface><name>et-0/0/1</name>
 <state><name>et-0/0/1</name><ifindex>7</ifindex><enabled>true</enabled><admin-status>UP</admin-status>
  <oper-status>DOWN</oper-status>
  <counters><in-octets>18446744073709551615</in-octets><in-unicast-pkts>2</in-unicast-pkts>
   <in-discards>3</in-discards><in-errors>4</in-errors><out-octets>5</out-octets>
   <out-unicast-pkts>6</out-unicast-pkts><out-discards>7</out-discards><out-errors>8</out-errors>
   <last-clear>1700000000000000000</last-clear></counters></state>
 <ethernet xmlns="{PREFIXES["oc-eth"]}"><state>
  <port-speed xmlns:e="{PREFIXES["oc-eth"]}">e:SPEED_100GB</port-speed></state></ethernet>
 <subinterfaces><subinterface><index>0</index><ipv4 xmlns="{PREFIXES["oc-ip"]}"><addresses>
  <address><ip>192.0.2.1</ip><state><ip>192.0.2.1</ip><prefix-length>31</prefix-length></state></address>
 </addresses></ipv4></subinterface></subinterfaces>
</interface></interfaces>"""
)
ROUTES_8349 = reply(
    f"""
<routing xmlns="{PREFIXES["rt"]}"><ribs><rib><name>ipv4-master</name><routes>
 <route><active/><source-protocol xmlns:o="urn:x">o:ospfv2</source-protocol>
  <destination-prefix xmlns="{PREFIXES["v4ur"]}">10.2.0.0/16</destination-prefix>
  <next-hop><next-hop-list>
   <next-hop><outgoing-interface>eth1</outgoing-interface>
    <address xmlns="{PREFIXES["v4ur"]}">172.16.0.1</address></next-hop>
   <next-hop><outgoing-interface>eth2</outgoing-interface>
    <address xmlns="{PREFIXES["v4ur"]}">172.16.0.3</address></next-hop>
  </next-hop-list></next-hop></route>
 <route><active/><source-protocol>direct</source-protocol>
  <destination-prefix xmlns="{PREFIXES["v4ur"]}">10.1.0.0/16</destination-prefix>
  <next-hop><outgoing-interface>cust0</outgoing-interface></next-hop></route>
 <route><source-protocol>static</source-protocol>
  <destination-prefix xmlns="{PREFIXES["v4ur"]}">10.2.0.0/16</destination-prefix>
  <next-hop><next-hop-address xmlns="{PREFIXES["v4ur"]}">172.16.0.9</next-hop-address></next-hop></route>
</routes></rib></ribs></routing>"""
)
ROUTES_8022 = reply(
    f"""
<routing-state xmlns="{PREFIXES["rt"]}"><ribs><rib><name>v6</name><routes><route>
 <destination-prefix xmlns="{PREFIXES["v6ur"]}">2001:db8:1::/48</destination-prefix>
 <next-hop><next-hop-address xmlns="{PREFIXES["v6ur"]}">2001:db8::1</next-hop-address></next-hop>
</route></routes></rib></ribs></routing-state>"""
)
TOPOLOGY = reply(
    f"""
<networks xmlns="{PREFIXES["nw"]}"><network><network-id>n</network-id>
 <link xmlns="{PREFIXES["nt"]}"><link-id>1</link-id>
  <source><source-node>WA</source-node><source-tp>eth1</source-tp></source>
  <destination><dest-node>CA1</dest-node><dest-tp>eth2</dest-tp></destination></link>
 <link xmlns="{PREFIXES["nt"]}"><link-id>2</link-id>
  <source><source-node>CA1</source-node><source-tp>eth2</source-tp></source>
  <destination><dest-node>WA</dest-node><dest-tp>eth1</dest-tp></destination></link>
 <link xmlns="{PREFIXES["nt"]}"><link-id>3</link-id>
  <source><source-node>WA</source-node></source></link>
</network></networks>"""
)
QUEUES = reply(
    f"""
<qos xmlns="{PREFIXES["oc-qos"]}"><interfaces><interface><interface-id>et-0/0/1</interface-id>
 <output><queues><queue><name>BE</name><state><name>BE</name><max-queue-len>9000</max-queue-len>
  <transmit-octets>100</transmit-octets><dropped-pkts>2</dropped-pkts><dropped-octets>3000</dropped-octets>
 </state></queue></queues></output></interface></interfaces></qos>"""
)


def probes(results: str, target: str = "10.255.0.2") -> bytes:
    return reply(
        f"""
<probes xmlns="{PREFIXES["oc-probes"]}"><probe><name>p</name><tests><test><name>t</name>
 <state><dscp>46</dscp></state><target><state><address>{target}</address></state></target>
 <results><state>{results}</state></results></test></tests></probe></probes>"""
    )


# ------------------------------------------------------------------------------------------ golden bytes


def test_openconfig_interfaces_become_the_same_records() -> None:
    """Every mapped leaf of openconfig-interfaces arrives, speed by its identity, addresses with prefixes."""
    root = parse_reply(OC_INTERFACES)
    assert interfaces_of(root) == (
        InterfaceCounters(
            name="et-0/0/1",
            if_index=7,
            in_octets=2**64 - 1,
            out_octets=5,
            in_packets=2,
            out_packets=6,
            in_discards=3,
            out_discards=7,
            in_errors=4,
            out_errors=8,
            speed_bps=1e11,
            admin_up=True,
            oper_up=False,
            discontinuity_at_ns=1_700_000_000_000_000_000,
        ),
    )
    assert addresses_of(root) == (
        InterfaceAddress(interface="et-0/0/1", address="192.0.2.1", prefix="192.0.2.0/31"),
    )


def test_where_two_models_tell_of_one_interface_the_ietfs_counts() -> None:
    """An interface that both models list is one record, not two."""
    entry = "<interface><name>et-0/0/1</name><if-index>1</if-index></interface>"
    ietf = f'<interfaces xmlns="{PREFIXES["if"]}">{entry}</interfaces>'
    both = OC_INTERFACES.replace(b"<data>", b"<data>" + ietf.encode())
    assert [one.if_index for one in interfaces_of(parse_reply(both))] == [1]


def test_routes_of_both_revisions_are_read() -> None:
    """Equal next hops are rows of their own; routes not in force are left out; direct ones end here."""
    assert routes_of(parse_reply(ROUTES_8349)) == (
        Route(prefix="10.1.0.0/16", interface="cust0", local=True),
        Route(prefix="10.2.0.0/16", next_hop="172.16.0.1", interface="eth1"),
        Route(prefix="10.2.0.0/16", next_hop="172.16.0.3", interface="eth2"),
    )
    assert routes_of(parse_reply(ROUTES_8022)) == (Route(prefix="2001:db8:1::/48", next_hop="2001:db8::1"),)


def test_a_device_speaks_for_its_own_links_only() -> None:
    """Of a whole topology only what leaves the device becomes its neighbours; halves of links are none."""
    root = parse_reply(TOPOLOGY)
    assert neighbours_of(root, "WA") == (
        Neighbour(local_interface="eth1", remote_device="CA1", remote_interface="eth2", protocol="static"),
    )
    assert neighbours_of(root, "NY") == ()


def test_queues_become_counters() -> None:
    """openconfig-qos: the queue's interface, its name and what it sent and dropped."""
    assert queues_of(parse_reply(QUEUES)) == (
        QueueCounters(
            interface="et-0/0/1",
            direction="out",
            name="BE",
            sent_octets=100,
            dropped_packets=2,
            dropped_octets=3000,
            most_depth_octets=9000,
        ),
    )


RESULTS = (
    "<probes-sent>10</probes-sent><probes-received>8</probes-received><min-delay>1000</min-delay>"
    "<avg-delay>1500</avg-delay><max-delay>3000</max-delay><jitter>20</jitter>"
)


@pytest.mark.parametrize(
    ("times", "start_ns", "end_ns"),
    [
        (
            f"<start-timestamp>{NOW_NS - 9}</start-timestamp>"
            f"<last-test-timestamp>{NOW_NS - 4}</last-test-timestamp>",
            NOW_NS - 9,
            NOW_NS - 4,
        ),
        ("<test-duration>2000000</test-duration>", NOW_NS - 2_000_000_000, NOW_NS),
        ("<last-test-timestamp>123456</last-test-timestamp>", NOW_NS, NOW_NS),
    ],
    ids=["since 1970", "no timestamps", "since the device's start"],
)
def test_probes_become_round_trips(times: str, start_ns: int, end_ns: int) -> None:
    """Microseconds become seconds; timestamps of an unknown epoch are not believed."""
    (delay,) = delays_of(parse_reply(probes(RESULTS + times)), NOW_NS)
    assert delay == PathDelay(
        destination="10.255.0.2",
        start_ns=start_ns,
        end_ns=end_ns,
        count=8,
        mean_s=1500 * 1e-6,
        min_s=1000 * 1e-6,
        max_s=3000 * 1e-6,
        ipdv_s=20 * 1e-6,
        sent=10,
        lost=2,
        traffic_class=46,
    )


@pytest.mark.parametrize("last", ["123456", str(NOW_NS - 4)], ids=["an unknown epoch", "since 1970"])
def test_a_result_that_was_read_before_is_no_measurement(last: str) -> None:
    """The device's own time of the result tells, believed or not; without one, nothing can be told."""
    told = f"{RESULTS}<last-test-timestamp>{last}</last-test-timestamp>"
    root = parse_reply(probes(told))
    seen = results_of(root)
    assert len(delays_of(root, NOW_NS)) == len(seen) == 1
    assert delays_of(root, NOW_NS + 15 * 10**9, seen) == ()
    again = parse_reply(probes(told.replace(last, str(int(last) + 1))))
    assert len(delays_of(again, NOW_NS + 15 * 10**9, seen)) == 1
    timeless = parse_reply(probes(RESULTS))
    assert len(delays_of(timeless, NOW_NS, results_of(timeless))) == 1


def test_a_probe_without_an_answer_has_a_count_of_zero_and_one_without_figures_is_none() -> None:
    """All lost is a measurement; a test that never ran, or one of a URL, is not."""
    lost = probes("<probes-sent>5</probes-sent><probes-received>0</probes-received>")
    (delay,) = delays_of(parse_reply(lost), NOW_NS)
    assert (delay.count, delay.lost) == (0, 5)
    assert delays_of(parse_reply(probes("")), NOW_NS) == ()
    assert delays_of(parse_reply(probes(RESULTS, target="")), NOW_NS) == ()


# ------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (b"<in-unicast-pkts>2<", b"<in-unicast-pkts>-2<", "in-unicast-pkts is '-2'"),
        (b"18446744073709551615", b"18446744073709551616", "in-octets is"),
        (b"<ifindex>7<", b"<ifindex>seven<", "ifindex is 'seven'"),
    ],
)
def test_numbers_that_no_counter_can_have_are_refused(good: bytes, bad: bytes, reason: str) -> None:
    """A counter below zero or beyond 64 bits is told with its leaf."""
    with pytest.raises(DecodeError, match=reason):
        interfaces_of(parse_reply(OC_INTERFACES.replace(good, bad)))


def test_an_unknown_speed_is_unknown() -> None:
    """An identity that is not in the table gives no speed, and no error."""
    unknown = OC_INTERFACES.replace(b"SPEED_100GB", b"SPEED_UNKNOWN")
    assert interfaces_of(parse_reply(unknown))[0].speed_bps is None


@given(st.data())
def test_a_torn_reply_is_a_decode_error(data: st.DataObject) -> None:
    """However it is cut, a reply is whole or refused."""
    whole = data.draw(st.sampled_from([OC_INTERFACES, ROUTES_8349, TOPOLOGY, QUEUES, probes(RESULTS)]))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        parse_reply(whole[:cut])


def test_models_are_asked_for_as_announced() -> None:
    """The hello decides; a device that announces none is asked for ietf-interfaces."""
    assert announced(()) == (IETF_INTERFACES,)
    assert announced((f"{PREFIXES['oc-if']}?module=openconfig-interfaces&revision=2021-04-06",)) == (
        MODELS[1],
    )
    assert announced((PREFIXES["nt"],)) == (IETF_INTERFACES, MODELS[-1])
    assert plain("oc-if:state/oc-if:ifindex") == "state/ifindex"


# ----------------------------------------------------------------------------------------- notifications


def notification(body: str, time: str = "2027-01-15T08:00:00Z") -> bytes:
    namespace = "urn:ietf:params:xml:ns:netconf:notification:1.0"
    return f'<notification xmlns="{namespace}"><eventTime>{time}</eventTime>{body}</notification>'.encode()


CONFIG_CHANGE = """<netconf-config-change xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-notifications">
 <changed-by><username>root</username><session-id>2</session-id></changed-by><datastore>running</datastore>
 <edit><target xmlns:if="urn:x">/if:interfaces</target><operation>create</operation></edit>
</netconf-config-change>"""
LINK_DOWN = (
    '<link-down xmlns="http://yuma123.org/ns/interfaces-notifications"><if-name>eth1</if-name></link-down>'
)


def test_a_configuration_change_is_an_event() -> None:
    """RFC 6470: who changed what, at the device's time."""
    assert event_of(notification(CONFIG_CHANGE), "net", "WA", NOW_NS + 5) == NetworkEvent(
        network="net",
        device="WA",
        observed_at_ns=NOW_NS,
        kind="configuration-changed",
        detail="username root, datastore running, operation create, target /if:interfaces",
    )


def test_a_link_is_told_with_its_name() -> None:
    """Yuma123's interface notifications are link events."""
    event = event_of(notification(LINK_DOWN), "net", "WA", NOW_NS)
    assert event is not None
    assert (event.kind, event.interface) == ("link-down", "eth1")


def test_a_clock_that_is_off_is_not_believed() -> None:
    """An event time far from ours is replaced by the time of reading."""
    event = event_of(notification(LINK_DOWN, "2035-01-01T00:00:00+01:00"), "net", "WA", NOW_NS)
    assert event is not None
    assert event.observed_at_ns == NOW_NS


def test_what_is_no_news_is_none_and_what_is_no_notification_an_error() -> None:
    """Sessions that come and go are nobody's business; nonsense is told."""
    assert event_of(notification('<netconf-session-start xmlns="urn:x"/>'), "net", "WA", NOW_NS) is None
    with pytest.raises(DecodeError, match="is no notification"):
        event_of(reply(""), "net", "WA", NOW_NS)
    with pytest.raises(DecodeError, match="eventTime"):
        event_of(notification(LINK_DOWN, "soon"), "net", "WA", NOW_NS)


def test_a_namespace_that_holds_a_brace_is_no_news() -> None:
    """lxml refuses it, but not where a relative namespace follows: libxml2's warning hides the error."""
    relative = '<x xmlns="relative"/>'
    with pytest.raises(DecodeError, match="<notification> is no notification"):
        event_of(f'<notification xmlns="urn:x}}l">{relative}</notification>'.encode(), "net", "WA", NOW_NS)
    foreign = f'<link-down xmlns="urn:x}}l">{relative}<if-name>eth1</if-name></link-down>'
    assert event_of(notification(foreign), "net", "WA", NOW_NS) is None
