"""The flow bench: what it measures, and that everybody counts the same."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from ndtwin.bench_ipfix import DOMAINS, bench_ipfix, corpus


def test_the_corpus_is_what_it_says() -> None:
    """Every datagram is an IPFIX message under the MTU; each line card begins with its templates."""
    flows = corpus(2000)
    assert len({flows.datagrams[i][12:16] for i in range(DOMAINS)}) == DOMAINS
    assert all(datagram[:2] == b"\x00\x0a" and len(datagram) <= 1400 for datagram in flows.datagrams)
    assert all(datagram[16:18] == b"\x00\x02" for datagram in flows.datagrams[:DOMAINS])


@pytest.mark.skipif(importlib.util.find_spec("netflow") is None, reason="PyPI's netflow is not installed")
def test_the_bench_beats_what_it_compares_with() -> None:
    """Even on a busy machine: records by the hundred thousand a second, tens of times PyPI's netflow."""
    told: list[str] = []
    figures = bench_ipfix(60_000, watch=told.append)
    assert figures["records_per_s"] > 200_000
    assert figures["vs_netflow"] > 20
    assert figures["cells"] > 1000
    if shutil.which("nfcapd") and shutil.which("nfdump"):
        assert told == []
        assert figures["vs_nfcapd"] > 0.1
        assert 0 < figures["vs_nfcapd_alone"] < figures["vs_nfcapd"]
