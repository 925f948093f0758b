"""What the lab in namespaces can be told besides the table ``lab``: the configuration's table ``netns``."""

from __future__ import annotations

from typing import Annotated

import msgspec

LEAST_ROUTERS, MOST_ROUTERS = 2, 24
# What a loop on this lab needs besides. How long the kernel takes and that all packets are of one size nobody
# tells: the twin has to learn it. And softflowd tells of a flow some seconds after the packets.
LOOP_TABLES: dict[str, dict[str, object]] = {"twin": {"calibrate": True}, "pipeline": {"lateness_s": 5.0}}


class NetnsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Slow links and few packets: the queues are the kernel's, and small machines must keep up."""

    packets_per_link_s: Annotated[float, msgspec.Meta(ge=1, le=5000)] = 150.0  # mean over all links
    least_bps: Annotated[float, msgspec.Meta(ge=1e5, le=1e9)] = 5e5  # of a link
    buffer_packets: Annotated[int, msgspec.Meta(ge=4, le=1000)] = 64
    tcp: bool = True  # a TCP stream from every router to the next, beside the UDP traffic
    probe_pps: Annotated[float, msgspec.Meta(ge=0.1, le=50)] = 4.0  # STAMP, per ordered pair of routers
    probe_octets: Annotated[int, msgspec.Meta(ge=80, le=500)] = 500  # see the plan for why
