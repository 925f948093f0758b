"""The command line: parse, call one function, print one clear line when it fails.

Exit codes: 0 done, 1 the thing checked does not hold (or a part could not do its work), 2 wrong use.
Results go to stdout (`--json` where a program might read them), everything else to stderr.
"""

from __future__ import annotations

import sys

import typer

from ndtwin import logs
from ndtwin.commands import bench, discover, lab, models, operate, records, services, stamp, train
from twin.errors import NdtwinError

app = typer.Typer(
    name="ndtwin",
    help="A streaming, event-driven digital twin of a live network. Begin with `ndtwin up`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for group in (operate, services, records, discover, train, models):
    group.register(app)
app.add_typer(lab.app, name="lab")
app.add_typer(stamp.app, name="stamp")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point of the console script."""
    logs.configure()  # whatever the command: unconfigured, structlog writes to stdout, among the results
    try:
        app()
    except NdtwinError as error:
        print(f"ndtwin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
