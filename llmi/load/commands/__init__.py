"""`llmi bench` and `llmi chaos` on the command line.

May import everything in `llmi.load`, on use only.
"""

from __future__ import annotations

import typer

from llmi.load.commands import client, code, overlap, queue, soak, staleness

app = typer.Typer(no_args_is_help=True, help="Benchmark this program on this machine.")


@app.callback()
def benches() -> None:
    """Each benchmark starts what it needs, and ends by itself."""


app.command()(client.client)
app.command()(overlap.overlap)
app.command()(code.code)
app.command()(queue.queue)
app.command()(soak.soak)
app.command()(staleness.staleness)
