"""Information elements (IANA "IPFIX Information Elements"): what a field is and how its octets are read.

The table holds what ndtwin reads or is likely to meet; an element that is not here is carried as octets.
On-path delay (RFC 9951): its drafts used other numbers, some of which IANA has given to other elements since,
so the numbers stand in this table and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Abstract data types (RFC 7012 section 3.1), as far as they differ in reading."""

    UNSIGNED = "unsigned"  # also identifiers and booleans
    FLOAT = "float"
    IPV4 = "ipv4"
    SECONDS = "seconds"  # dateTimeSeconds
    MILLISECONDS = "milliseconds"  # dateTimeMilliseconds
    NTP = "ntp"  # dateTimeMicroseconds and dateTimeNanoseconds: both are 64-bit NTP time stamps
    OCTETS = "octets"  # octetArray, string, ipv6Address, macAddress and what is unknown


@dataclass(frozen=True)
class Element:
    """One row of the registry."""

    id: int
    name: str
    kind: Kind = Kind.UNSIGNED


OCTETS = 1
PACKETS = 2
PROTOCOL, TOS, TCP_FLAGS = 4, 5, 6
SOURCE_PORT, DESTINATION_PORT = 7, 11
SOURCE_IPV4, SOURCE_PREFIX_V4 = 8, 9
INGRESS = 10
DESTINATION_IPV4, DESTINATION_PREFIX_V4 = 12, 13
EGRESS = 14
NEXT_HOP_IPV4 = 15
SOURCE_AS, DESTINATION_AS = 16, 17
END_UPTIME, START_UPTIME = 21, 22
SOURCE_IPV6, DESTINATION_IPV6 = 27, 28
SOURCE_PREFIX_V6, DESTINATION_PREFIX_V6 = 29, 30
SAMPLING_INTERVAL, SAMPLING_ALGORITHM = 34, 35
SAMPLER_ID, SAMPLER_MODE, SAMPLER_INTERVAL = 48, 49, 50
DIRECTION = 61
OCTETS_TOTAL, PACKETS_TOTAL = 85, 86
START_S, END_S, START_MS, END_MS, START_US, END_US, START_NS, END_NS = range(150, 158)
START_DELTA_US, END_DELTA_US = 158, 159  # before the message's export time
BOOT_MS = 160
DSCP = 195
PADDING = 210
PHYSICAL_INGRESS, PHYSICAL_EGRESS = 252, 253
SELECTOR_ID, SELECTOR_ALGORITHM = 302, 304
SAMPLING_PACKETS, SAMPLING_SPACE = 305, 306
SAMPLING_TIME, SAMPLING_TIME_SPACE = 307, 308
SAMPLING_SIZE, SAMPLING_POPULATION, SAMPLING_PROBABILITY = 309, 310, 311
DELAY_MEAN_US, DELAY_MIN_US, DELAY_MAX_US, DELAY_SUM_US = 530, 531, 532, 533

_UNSIGNED = {
    OCTETS: "octetDeltaCount",
    PACKETS: "packetDeltaCount",
    3: "deltaFlowCount",
    PROTOCOL: "protocolIdentifier",
    TOS: "ipClassOfService",
    TCP_FLAGS: "tcpControlBits",
    SOURCE_PORT: "sourceTransportPort",
    SOURCE_PREFIX_V4: "sourceIPv4PrefixLength",
    INGRESS: "ingressInterface",
    DESTINATION_PORT: "destinationTransportPort",
    DESTINATION_PREFIX_V4: "destinationIPv4PrefixLength",
    EGRESS: "egressInterface",
    SOURCE_AS: "bgpSourceAsNumber",
    DESTINATION_AS: "bgpDestinationAsNumber",
    END_UPTIME: "flowEndSysUpTime",
    START_UPTIME: "flowStartSysUpTime",
    SOURCE_PREFIX_V6: "sourceIPv6PrefixLength",
    DESTINATION_PREFIX_V6: "destinationIPv6PrefixLength",
    SAMPLING_INTERVAL: "samplingInterval",
    SAMPLING_ALGORITHM: "samplingAlgorithm",
    40: "exportedOctetTotalCount",
    41: "exportedMessageTotalCount",
    42: "exportedFlowRecordTotalCount",
    SAMPLER_ID: "samplerId",
    SAMPLER_MODE: "samplerMode",
    SAMPLER_INTERVAL: "samplerRandomInterval",
    DIRECTION: "flowDirection",
    OCTETS_TOTAL: "octetTotalCount",
    PACKETS_TOTAL: "packetTotalCount",
    132: "droppedOctetDeltaCount",
    133: "droppedPacketDeltaCount",
    136: "flowEndReason",
    138: "observationPointId",
    143: "meteringProcessId",
    144: "exportingProcessId",
    145: "templateId",
    149: "observationDomainId",
    START_DELTA_US: "flowStartDeltaMicroseconds",
    END_DELTA_US: "flowEndDeltaMicroseconds",
    DSCP: "ipDiffServCodePoint",
    234: "ingressVRFID",
    235: "egressVRFID",
    PHYSICAL_INGRESS: "ingressPhysicalInterface",
    PHYSICAL_EGRESS: "egressPhysicalInterface",
    SELECTOR_ID: "selectorId",
    303: "informationElementId",
    SELECTOR_ALGORITHM: "selectorAlgorithm",
    SAMPLING_PACKETS: "samplingPacketInterval",
    SAMPLING_SPACE: "samplingPacketSpace",
    SAMPLING_TIME: "samplingTimeInterval",
    SAMPLING_TIME_SPACE: "samplingTimeSpace",
    SAMPLING_SIZE: "samplingSize",
    SAMPLING_POPULATION: "samplingPopulation",
    DELAY_MEAN_US: "pathDelayMeanDeltaMicroseconds",
    DELAY_MIN_US: "pathDelayMinDeltaMicroseconds",
    DELAY_MAX_US: "pathDelayMaxDeltaMicroseconds",
    DELAY_SUM_US: "pathDelaySumDeltaMicroseconds",
}
_OTHERS = (
    Element(SOURCE_IPV4, "sourceIPv4Address", Kind.IPV4),
    Element(DESTINATION_IPV4, "destinationIPv4Address", Kind.IPV4),
    Element(NEXT_HOP_IPV4, "ipNextHopIPv4Address", Kind.IPV4),
    Element(18, "bgpNextHopIPv4Address", Kind.IPV4),
    Element(SOURCE_IPV6, "sourceIPv6Address", Kind.OCTETS),
    Element(DESTINATION_IPV6, "destinationIPv6Address", Kind.OCTETS),
    Element(62, "ipNextHopIPv6Address", Kind.OCTETS),
    Element(63, "bgpNextHopIPv6Address", Kind.OCTETS),
    Element(82, "interfaceName", Kind.OCTETS),
    Element(83, "interfaceDescription", Kind.OCTETS),
    Element(130, "exporterIPv4Address", Kind.IPV4),
    Element(131, "exporterIPv6Address", Kind.OCTETS),
    Element(START_S, "flowStartSeconds", Kind.SECONDS),
    Element(END_S, "flowEndSeconds", Kind.SECONDS),
    Element(START_MS, "flowStartMilliseconds", Kind.MILLISECONDS),
    Element(END_MS, "flowEndMilliseconds", Kind.MILLISECONDS),
    Element(START_US, "flowStartMicroseconds", Kind.NTP),
    Element(END_US, "flowEndMicroseconds", Kind.NTP),
    Element(START_NS, "flowStartNanoseconds", Kind.NTP),
    Element(END_NS, "flowEndNanoseconds", Kind.NTP),
    Element(BOOT_MS, "systemInitTimeMilliseconds", Kind.MILLISECONDS),
    Element(PADDING, "paddingOctets", Kind.OCTETS),
    Element(SAMPLING_PROBABILITY, "samplingProbability", Kind.FLOAT),
    Element(335, "selectorName", Kind.OCTETS),
)
ELEMENTS: dict[int, Element] = {id: Element(id, name) for id, name in _UNSIGNED.items()} | {
    element.id: element for element in _OTHERS
}


def kind_of(enterprise: int, id: int) -> Kind:
    """How an element is read; enterprise-specific and unknown ones are octets."""
    element = ELEMENTS.get(id) if enterprise == 0 else None
    return element.kind if element is not None else Kind.OCTETS
