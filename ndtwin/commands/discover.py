"""`ndtwin discover`: from one device to an inventory of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndtwin import logs
from ndtwin.commands.common import JsonOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(discover)


def discover(
    seed: Annotated[str, typer.Argument(help="Address of a device to begin with.")],
    credentials: Annotated[
        Path, typer.Option(help="TOML with [credentials.NAME] sets; tried in the file's order.")
    ],
    within: Annotated[list[str], typer.Option(help="Prefix whose addresses may be asked; repeatable.")],
    out: Annotated[Path, typer.Option(help="Inventory to write; must not exist.")] = Path("inventory.toml"),
    network: Annotated[str, typer.Option(help="Name of the network in the inventory.")] = "network",
    port: Annotated[int, typer.Option(help="UDP port of the agents.", min=1, max=65535)] = 161,
    most: Annotated[int, typer.Option(help="Devices at most.", min=1)] = 1000,
    at_once: Annotated[int, typer.Option(help="Devices asked at the same time.", min=1, max=64)] = 8,
    as_json: JsonOption = False,
) -> None:
    """Walk from one device to its LLDP and OSPF neighbours, and write an inventory of who answers."""
    from ndtwin.discover import Plan, run_discovery

    logs.configure()
    plan = Plan(seed, credentials, tuple(within), out, network, port=port, most=most, at_once=at_once)
    summary = run_discovery(plan, watch=say)
    if as_json:
        print_json(summary)
