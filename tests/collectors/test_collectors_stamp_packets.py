"""STAMP's bytes: golden both ways, torn, truncated, and as another implementation (scapy) reads them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.stamp import tlv
from collectors.stamp.packets import (
    ReplyPacket,
    TestPacket,
    decode_reply,
    decode_test,
    encode_reply,
    encode_test,
    tag,
)
from collectors.stamp.timestamps import ErrorEstimate, TimestampFormat, from_wire, to_wire
from twin.errors import DecodeError

S = 1_000_000_000
NEW_YEAR_NS = 1_767_225_600 * S  # 2026-01-01
KEY = b"not a secret in a test"
SENT = TestPacket(sequence=7, timestamp=0xED003780_80000000, error=0x8903, ssid=0x1234)
BACK = ReplyPacket(
    sequence=5,
    timestamp=0xED003780_C0000000,
    error=0x8801,
    ssid=0x1234,
    receive_timestamp=0xED003780_A0000000,
    sender_sequence=7,
    sender_timestamp=0xED003780_80000000,
    sender_error=0x8903,
    sender_ttl=254,
)
# RFC 8762 figures 2 and 5 (SSID: RFC 8972 figures 1 and 2), written by hand.
PLAIN_SENT = bytes.fromhex("00000007 ed003780 80000000 8903 1234" + "00" * 28)
PLAIN_BACK = bytes.fromhex(
    "00000005 ed003780c0000000 8801 1234 ed003780a0000000 00000007 ed00378080000000 8903 0000 fe 000000"
)
# RFC 8762 figures 4 and 6 without their HMAC: every field begins a block of 16 octets or follows one.
SIGNED_SENT = bytes.fromhex("00000007" + "00" * 12 + "ed00378080000000 8903 1234" + "00" * 68)
SIGNED_BACK = bytes.fromhex(
    "00000005" + "00" * 12 + "ed003780c0000000 8801 1234 00000000"
    "ed003780a0000000" + "00" * 8 + "00000007" + "00" * 12 + "ed00378080000000 8903 000000000000"
    "fe" + "00" * 15
)


def test_hmac_is_sha256_cut_to_16_octets() -> None:
    """RFC 4231 test case 1, its first half."""
    assert tag(b"Hi There", b"\x0b" * 20).hex() == "b0344c61d8db38535ca8afceaf0bf12b"


def test_plain_packets_are_the_rfc_s_bytes_both_ways() -> None:
    """44 octets each, every field in its place."""
    assert encode_test(SENT) == PLAIN_SENT
    assert decode_test(PLAIN_SENT) == SENT
    assert encode_reply(BACK) == PLAIN_BACK
    assert decode_reply(PLAIN_BACK) == BACK
    assert (len(PLAIN_SENT), len(PLAIN_BACK)) == (44, 44)


def test_signed_packets_are_the_rfc_s_bytes_both_ways() -> None:
    """112 octets each; the HMAC covers the first 96."""
    for packet, covered in ((SENT, SIGNED_SENT), (BACK, SIGNED_BACK)):
        assert len(covered) == 96
        signed = covered + tag(covered, KEY)
        if isinstance(packet, TestPacket):
            assert encode_test(packet, KEY) == signed
            assert decode_test(signed, KEY) == packet
        else:
            assert encode_reply(packet, KEY) == signed
            assert decode_reply(signed, KEY) == packet


def test_another_implementation_reads_the_same_fields() -> None:
    """scapy's dissector and ours agree on both packets, TLVs included."""
    stamp = pytest.importorskip("scapy.contrib.stamp", reason="scapy is not installed")
    extra = tlv.encode(tlv.CLASS_OF_SERVICE, tlv.ClassOfService(46).to_value()) + tlv.padding(10)
    theirs = stamp.STAMPSessionSenderTestUnauthenticated(PLAIN_SENT + extra)
    assert (theirs.seq, theirs.ssid, theirs.err_estimate.S, theirs.err_estimate.multiplier) == (
        7,
        0x1234,
        1,
        3,
    )
    assert float(theirs.ts) == 0xED003780 + 0.5
    assert [(one.type, one.len, bytes(one.value)) for one in theirs.tlv_objects] == [
        (4, 4, bytes.fromhex("b8000000")),
        (1, 6, bytes(6)),
    ]
    back = stamp.STAMPSessionReflectorTestUnauthenticated(PLAIN_BACK)
    assert (back.seq, back.seq_sender, back.ttl_sender) == (5, 7, 254)
    assert float(back.ts_rx) == 0xED003780 + 0.625
    built = stamp.STAMPSessionSenderTestUnauthenticated(
        seq=7, ssid=0x1234, err_estimate=stamp.ErrorEstimate(S=1, scale=9, multiplier=3)
    )
    built.ts = 0xED003780 + 0.5
    assert decode_test(bytes(built)) == SENT


def test_twamp_light_packets_are_understood() -> None:
    """A sender's 14 octets and padding, a reflector's 41; what is padding there is not looked at."""
    short = decode_test(PLAIN_SENT[:14])
    assert (short.sequence, short.timestamp, short.error, short.ssid) == (7, SENT.timestamp, 0x8903, 0)
    padded = decode_test(PLAIN_SENT[:14] + b"\xff" * 60)
    assert (padded.sequence, padded.timestamp) == (7, SENT.timestamp)
    assert decode_reply(PLAIN_BACK[:41]) == BACK


@pytest.mark.parametrize("octets", range(14))
def test_a_torn_test_packet_is_refused(octets: int) -> None:
    """Fewer octets than the shortest packet are a DecodeError, never another exception."""
    with pytest.raises(DecodeError, match="14 are the least"):
        decode_test(PLAIN_SENT[:octets])


@pytest.mark.parametrize("octets", range(41))
def test_a_torn_reply_is_refused(octets: int) -> None:
    """Fewer octets than TWAMP's reply are a DecodeError."""
    with pytest.raises(DecodeError, match="41 are the least"):
        decode_reply(PLAIN_BACK[:octets])


def test_every_flipped_bit_of_a_signed_packet_is_found() -> None:
    """Integrity: no octet of the 112 can change unnoticed, and another key fits nothing."""
    signed = encode_test(SENT, KEY)
    for i in range(len(signed)):
        with pytest.raises(DecodeError, match="HMAC does not fit"):
            decode_test(signed[:i] + bytes([signed[i] ^ 1]) + signed[i + 1 :], KEY)
    with pytest.raises(DecodeError, match="HMAC does not fit"):
        decode_test(signed, b"another key")
    for octets in (0, 44, 111):
        with pytest.raises(DecodeError, match="112 are the least"):
            decode_reply(signed[:octets], KEY)


@given(st.binary(max_size=200), st.sampled_from([b"", KEY]))
def test_any_bytes_are_a_packet_or_a_decode_error(datagram: bytes, key: bytes) -> None:
    """Decoding raises nothing else, and TLV reading nothing at all."""
    for decode in (decode_test, decode_reply):
        try:
            packet = decode(datagram, key)
        except DecodeError:
            continue
        answer = tlv.answer(1, 2, packet.extra, dscp=46, ecn=1, key=key)
        assert len(answer.extra) == len(packet.extra)


# ------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("form", "at_ns", "wire"),
    [
        ("ntp", NEW_YEAR_NS + S // 2, 0xED003780_80000000),
        ("ntp", 0, 0x83AA7E80_00000000),
        ("ntp", 2_085_978_496 * S, 0),  # 2036-02-07 06:28:16: the era ends
        ("ptp", NEW_YEAR_NS + 5, (1_767_225_637 << 32) | 5),  # TAI
    ],
)
def test_timestamps_are_the_known_numbers(form: TimestampFormat, at_ns: int, wire: int) -> None:
    """NTP counts from 1900 in fractions of 2⁻³², PTP from 1970 in TAI seconds and nanoseconds."""
    assert to_wire(at_ns, form) == wire
    assert from_wire(wire, form, at_ns + 10 * S) == at_ns


@given(st.integers(0, 1 << 62), st.sampled_from(["ntp", "ptp"]), st.integers(-17 * S, 17 * S))
def test_times_survive_the_wire_in_every_era(at_ns: int, form: TimestampFormat, away_ns: int) -> None:
    """Whatever the century, a nanosecond is kept, if our own clock is near."""
    assert abs(from_wire(to_wire(at_ns, form), form, at_ns + away_ns) - at_ns) <= 1


def test_a_ptp_peer_that_counts_utc_is_understood() -> None:
    """Seconds without the 37 of TAI: the reading nearer to our clock is taken."""
    utc = (1_767_225_600 << 32) | 250
    assert from_wire(utc, "ptp", NEW_YEAR_NS - 10 * S) == NEW_YEAR_NS + 250


@pytest.mark.parametrize(
    ("estimate", "field"),
    [
        (ErrorEstimate(True, 2.0**-32), 0x8001),
        (ErrorEstimate(False, 1.0, "ptp"), 0x5980),  # 128 · 2^(25 − 32)
        (ErrorEstimate(True, 255 * 2.0**-32), 0x80FF),
        (ErrorEstimate(True, 0.0), 0x8001),  # a multiplier of zero must not be sent
        (ErrorEstimate(False, math.inf), 0x3FFF),
    ],
)
def test_error_estimates_are_the_rfc_s_fields(estimate: ErrorEstimate, field: int) -> None:
    """RFC 4656 section 4.1.2: S, Z, scale and multiplier."""
    assert estimate.to_wire() == field


def test_a_zero_multiplier_is_no_synchronised_clock() -> None:
    """Such a packet says that its times are worth nothing."""
    read = ErrorEstimate.from_wire(0x8000)
    assert (read.synchronised, read.error_s) == (False, math.inf)


@given(st.floats(0, 1e9), st.booleans(), st.sampled_from(["ntp", "ptp"]))
def test_an_error_estimate_is_never_told_smaller(
    error_s: float, synchronised: bool, form: TimestampFormat
) -> None:
    """What is read is at least what was meant, and at most a hundredth and a wire unit more."""
    read = ErrorEstimate.from_wire(ErrorEstimate(synchronised, error_s, form).to_wire())
    assert error_s <= read.error_s <= error_s * 1.01 + 2.0**-32
    assert (read.synchronised, read.form) == (synchronised, form)


# -------------------------------------------------------------------------------------------------- TLVs


def _cos(dscp: int) -> bytes:
    return tlv.encode(tlv.CLASS_OF_SERVICE, tlv.ClassOfService(dscp).to_value())


def test_class_of_service_is_answered_in_place() -> None:
    """RFC 8972 section 4.4 with erratum 8199: DSCP2 and ECN are what arrived, RP 0: DSCP1 is used."""
    assert _cos(46) == bytes.fromhex("80040004 b8000000")
    answer = tlv.answer(1, 1, _cos(46), dscp=10, ecn=1)
    assert answer.extra == bytes.fromhex("00040004 b8a40000")  # 101110 001010 01 00
    assert answer.reply_dscp == 46


def test_unknown_types_come_back_as_they_went_with_the_flag() -> None:
    """U stays set in what is not understood, is cleared in what is; nothing else changes."""
    unknown = tlv.encode(200, b"abc")
    answer = tlv.answer(1, 1, unknown + tlv.padding(8), dscp=0, ecn=0)
    assert answer.extra == unknown + b"\x00" + tlv.padding(8)[1:]
    assert answer.reply_dscp is None


@pytest.mark.parametrize(
    "bad",
    [
        bytes.fromhex("80 01 ffff 00"),  # longer than what is there
        bytes.fromhex("80 04 0003 000000"),  # Class of Service has 4 octets
        bytes.fromhex("80 08 0000"),  # HMAC has 16
    ],
)
def test_a_malformed_tlv_is_flagged_and_ends_the_reading(bad: bytes) -> None:
    """M is set in it, what follows is copied, and nothing in it is obeyed."""
    answer = tlv.answer(1, 1, bad + _cos(46), dscp=0, ecn=0)
    assert answer.extra == b"\x40" + (bad + _cos(46))[1:]
    assert answer.reply_dscp is None


def test_zeros_are_padding() -> None:
    """A TWAMP peer's padding comes back as it went."""
    assert tlv.answer(1, 1, bytes(40), dscp=0, ecn=0).extra == bytes(40)


def test_a_packet_full_of_empty_tlvs_costs_a_bounded_time() -> None:
    """Only so many are looked at; the rest is copied."""
    bomb = tlv.encode(200, b"") * 2000
    assert len(tlv.read(bomb).found) == 64
    assert len(tlv.answer(1, 1, bomb, dscp=0, ecn=0).extra) == len(bomb)


def test_sealed_tlvs_are_checked_and_sealed_anew() -> None:
    """RFC 8972 section 4.8: the HMAC TLV covers the sequence number and the TLVs before it, both ways."""
    sealed = tlv.seal(7, _cos(46), KEY)
    answer = tlv.answer(7, 5, sealed, dscp=46, ecn=0, key=KEY)
    assert answer.reply_dscp == 46
    assert tlv.intact(5, answer.extra, tlv.read(answer.extra), KEY)
    assert not tlv.intact(6, answer.extra, tlv.read(answer.extra), KEY)


@pytest.mark.parametrize("extra", [_cos(46), tlv.seal(8, _cos(46), KEY), tlv.seal(7, _cos(46), b"other")])
def test_tlvs_that_are_not_sealed_are_not_obeyed(extra: bytes) -> None:
    """Without a seal, with another packet's, or with another key's: I is set everywhere."""
    answer = tlv.answer(7, 5, extra, dscp=0, ecn=0, key=KEY)
    assert answer.reply_dscp is None
    assert all(one.flags == tlv.INTEGRITY for one in tlv.read(answer.extra).found)
    assert answer.extra[4:8] == extra[4:8]


def test_padding_alone_needs_no_seal() -> None:
    """The RFC's one exception."""
    assert tlv.answer(7, 5, tlv.padding(20), dscp=0, ecn=0, key=KEY).extra[0] == 0
