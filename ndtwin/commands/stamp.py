"""`ndtwin stamp reflect` and `ndtwin stamp send`: active delay by STAMP (RFC 8762)."""

from __future__ import annotations

from typing import Annotated

import typer

from ndtwin import logs
from ndtwin.commands.common import ConfigOption, JsonOption, print_json, say, settings_from
from twin.errors import UsageError

app = typer.Typer(help="Measure delay actively: STAMP (RFC 8762), TWAMP Light.", no_args_is_help=True)
KeyOption = Annotated[
    str | None,
    typer.Option("--auth-key", help="env:NAME or file:PATH: authenticated mode.", show_default="none"),
]
NetnsOption = Annotated[
    list[str] | None,
    typer.Option("--netns", help="Inside this network namespace; may be repeated.", show_default="here"),
]
ClockOption = Annotated[
    str, typer.Option(help="kernel: ask it; or synchronised, unsynchronised, where you know better.")
]
ClockErrorOption = Annotated[
    float, typer.Option(help="Seconds, with --clock synchronised.", min=0.0, max=1.0)
]


@app.command()
def reflect(
    listen: Annotated[
        list[str] | None, typer.Option(help="ADDRESS:PORT; may be repeated.", show_default="0.0.0.0:862")
    ] = None,
    netns: NetnsOption = None,
    stateful: Annotated[bool, typer.Option(help="Number replies, to tell which way lost a packet.")] = True,
    auth_key: KeyOption = None,
    source_pps: Annotated[float, typer.Option(help="Answered to one address.", min=1.0)] = 1000.0,
    total_pps: Annotated[float, typer.Option(help="Answered in all.", min=1.0)] = 20_000.0,
    answer_short: Annotated[
        bool, typer.Option(help="Also TWAMP Light requests of 14 to 40 octets, which replies outgrow.")
    ] = False,
    clock: ClockOption = "kernel",
    clock_error: ClockErrorOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Answer test packets until Ctrl-C; then say what was answered and what was not."""
    from ndtwin.stamp import reflect_until_stopped

    logs.configure()
    counts = reflect_until_stopped(
        listen or ["0.0.0.0:862"],
        netns or [""],
        stateful=stateful,
        auth_key=auth_key,
        source_pps=source_pps,
        total_pps=total_pps,
        answer_short=answer_short,
        clock=clock,
        clock_error_s=clock_error,
        ready=lambda where: say(f"reflecting at {where}"),
    )
    if as_json:
        print_json(counts)
    else:
        say(", ".join(f"{name} {number}" for name, number in counts.items()))


@app.command()
def send(
    config: ConfigOption = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Run the inventory's probes of this device, into Kafka; may be repeated."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Measure this ADDRESS[:PORT] once, and print it.")
    ] = None,
    count: Annotated[int, typer.Option(help="Packets, with --to.", min=1, max=10_000)] = 20,
    rate: Annotated[float, typer.Option(help="Packets a second, with --to.", min=0.1, max=100.0)] = 10.0,
    dscp: Annotated[int, typer.Option(help="Class, with --to.", min=0, max=63)] = 0,
    octets: Annotated[int, typer.Option(help="Packet size, with --to.", min=72, max=9000)] = 128,
    flows: Annotated[int, typer.Option(help="Source ports, with --to.", min=1, max=16)] = 1,
    timestamps: Annotated[str, typer.Option(help="ntp or ptp, with --to.")] = "ntp",
    stream: Annotated[str, typer.Option(help="poisson or periodic, with --to.")] = "poisson",
    auth_key: KeyOption = None,
    netns: Annotated[str, typer.Option("--netns", help="Send from this network namespace.")] = "",
    clock: ClockOption = "kernel",
    clock_error: ClockErrorOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Measure: the inventory's probes of a device for ever, or one address now."""
    from ndtwin.stamp import measure_once, send_until_stopped

    logs.configure()
    if (source is None) == (to is None):
        raise UsageError("give either --source DEVICE or --to ADDRESS")
    if source is not None:
        send_until_stopped(settings_from(config), source, netns=netns)
        return
    figures = measure_once(
        to or "",
        count=count,
        rate_pps=rate,
        dscp=dscp,
        packet_octets=octets,
        flows=flows,
        timestamps=timestamps,
        stream=stream,
        auth_key=auth_key,
        netns=netns,
        clock=clock,
        clock_error_s=clock_error,
    )
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        print(f"{name:18} {value:.6g}" if isinstance(value, float) else f"{name:18} {value}")
