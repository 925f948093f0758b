"""NETCONF replies and notifications as targets of :mod:`ndtwin.fuzzing`: from XML to records."""

from __future__ import annotations

from collections.abc import Sequence

from collectors.netconf_events import NOTIFICATION, event_of
from collectors.netconf_models import (
    addresses_of,
    delays_of,
    interfaces_of,
    neighbours_of,
    queues_of,
    routes_of,
)
from collectors.netconf_xml import PREFIXES, parse_reply
from ndtwin.fuzzing import Take, Target
from twin.errors import DecodeError

_NOW_NS = 1_800_000_000_000_000_000


def netconf_targets() -> Sequence[Target]:
    """Replies of every model, and notifications."""
    return (
        Target("netconf", [_reply(body) for body in _BODIES], _replies),
        Target("netconf-notification", [_notification(body) for body in _NOTIFICATIONS], _notifications),
    )


def _replies() -> Take:
    def take(message: bytes) -> bool:
        try:
            root = parse_reply(message)
            found = (
                interfaces_of(root),
                addresses_of(root),
                queues_of(root),
                routes_of(root),
                neighbours_of(root, "WA"),
                delays_of(root, _NOW_NS),
            )
        except DecodeError:
            return False
        return any(found)

    return take


def _notifications() -> Take:
    def take(message: bytes) -> bool:
        try:
            return event_of(message, "net", "WA", _NOW_NS) is not None
        except DecodeError:
            return False

    return take


def _reply(body: str) -> bytes:
    return f'<rpc-reply xmlns="{PREFIXES["nc"]}" message-id="1"><data>{body}</data></rpc-reply>'.encode()


def _notification(body: str) -> bytes:
    time = "<eventTime>2027-01-15T08:00:00Z</eventTime>"
    return f'<notification xmlns="{NOTIFICATION}">{time}{body}</notification>'.encode()


_BODIES = (
    f"""<interfaces xmlns="{PREFIXES["if"]}"><interface><name>eth1</name><enabled>true</enabled>
<if-index>7</if-index><speed>1000000000</speed><statistics>
<discontinuity-time>2026-04-01T03:00:00.5+00:00</discontinuity-time><in-octets>1</in-octets></statistics>
<ipv4 xmlns="{PREFIXES["ip"]}"><address><ip>192.0.2.1</ip><prefix-length>31</prefix-length></address></ipv4>
</interface></interfaces>""",
    f"""<interfaces xmlns="{PREFIXES["oc-if"]}"><interface><name>et1</name><state><ifindex>7</ifindex>
<oper-status>UP</oper-status><counters><in-octets>5</in-octets></counters></state>
<ethernet xmlns="{PREFIXES["oc-eth"]}"><state><port-speed>SPEED_1GB</port-speed></state></ethernet>
</interface></interfaces>""",
    f"""<routing xmlns="{PREFIXES["rt"]}"><ribs><rib><routes><route><active/>
<destination-prefix xmlns="{PREFIXES["v4ur"]}">10.2.0.0/16</destination-prefix><next-hop><next-hop-list>
<next-hop><outgoing-interface>eth1</outgoing-interface>
<address xmlns="{PREFIXES["v4ur"]}">172.16.0.1</address>
</next-hop></next-hop-list></next-hop></route></routes></rib></ribs></routing>""",
    f"""<networks xmlns="{PREFIXES["nw"]}"><network><link xmlns="{PREFIXES["nt"]}"><link-id>1</link-id>
<source><source-node>WA</source-node><source-tp>eth1</source-tp></source>
<destination><dest-node>CA1</dest-node><dest-tp>eth2</dest-tp></destination></link></network></networks>""",
    f"""<qos xmlns="{PREFIXES["oc-qos"]}"><interfaces><interface><interface-id>et1</interface-id>
<output><queues><queue><name>BE</name><state><transmit-octets>9</transmit-octets></state></queue></queues></output>
</interface></interfaces></qos>""",
    f"""<probes xmlns="{PREFIXES["oc-probes"]}"><probe><tests><test><target><state><address>10.0.0.2</address>
</state></target><results><state><start-timestamp>{_NOW_NS - 9}</start-timestamp>
<probes-sent>10</probes-sent><probes-received>8</probes-received><avg-delay>1500</avg-delay>
<test-duration>100</test-duration></state></results></test></tests></probe></probes>""",
)
_NOTIFICATIONS = (
    """<netconf-config-change xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-notifications">
<changed-by><username>root</username></changed-by><edit><target>/a</target><operation>create</operation></edit>
</netconf-config-change>""",
    '<link-down xmlns="http://yuma123.org/ns/interfaces-notifications"><if-name>eth1</if-name></link-down>',
)
