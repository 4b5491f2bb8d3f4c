"""`llmi serve`: judges and image models on this machine (ops/serve_*.sh call it)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from coordinator.cli.options import Json
from coordinator.cli.output import output, plain
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line

if TYPE_CHECKING:
    from coordinator.serve.serving import ServerSpec

app = typer.Typer(no_args_is_help=True, help="Serve the judges or an image model on this machine.")
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every node.")]
Timeout = Annotated[
    float, typer.Option("--timeout-s", min=1, metavar="SECONDS", help="How long loading may take.")
]
Dry = Annotated[bool, typer.Option("--dry-run", help="Print the commands; start nothing.")]
Logs = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder for the servers' logs.")]
LOGS = Path("runs/servers")
LINE_EVERY_S, LINE = 30.0, 120  # seconds between two lines of a server's log, and characters of one


@app.command()
def judges(
    only: Annotated[Literal["text", "image"] | None, typer.Option(help="Serve one judge only.")] = None,
    text_model: Annotated[str, typer.Option(help="The text judge \\[default: the published one].")] = "",
    image_model: Annotated[str, typer.Option(help="The image judge \\[default: the published one].")] = "",
    text_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the text judge.")] = 8001,
    image_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the image judge.")] = 8002,
    host: Host = "127.0.0.1",
    tensor_parallel_size: Annotated[int, typer.Option(min=1, help="GPUs for each judge.")] = 8,
    max_images: Annotated[int, typer.Option(min=1, help="Most images in one prompt.")] = 20,
    max_model_len: Annotated[
        int, typer.Option(min=1024, metavar="TOKENS", help="Most tokens of a prompt with its answer.")
    ] = 32_768,
    device: Annotated[
        Literal["cuda", "cpu"], typer.Option(help="cpu: tiny models with random weights, for a test.")
    ] = "cuda",
    timeout_s: Timeout = 3600.0,
    logs: Logs = LOGS,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Serve the text and the image judge with vLLM, until Ctrl-C.

    Waits until each has given a verdict, then prints what to export where training runs.
    """
    with output(as_json) as (console, result):
        from coordinator.serve import judge_servers

        served = judge_servers.plan(
            [only] if only else ["text", "image"],
            models={"text": text_model, "image": image_model},
            ports={"text": text_port, "image": image_port},
            host=host,
            tensor_parallel=tensor_parallel_size,
            images=max_images,
            tokens=max_model_len,
            device=device,
            dry_run=dry_run,
        )
        if dry_run and device == "cuda":
            result["lacking"] = judge_servers.missing_gpus(len(served), tensor_parallel_size)
            if result["lacking"]:
                _say(
                    console,
                    f"would not start here: {result['lacking']}; lower --tensor-parallel-size, serve one "
                    "judge with --only, or try --device cpu",
                )
        _serve(
            served, logs, timeout_s, dry_run, console, result, judge_servers.probe_server, "gave a verdict"
        )
    if result.get("lacking"):
        raise typer.Exit(1)


@app.command()
def images(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model of the server, such as Qwen/Qwen-Image.")
    ],
    server: Annotated[
        Literal["vllm-omni", "sglang"], typer.Option(help="The program that serves it.")
    ] = "vllm-omni",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8091,
    host: Host = "127.0.0.1",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the model.")] = 1,
    timeout_s: Timeout = 3600.0,
    logs: Logs = LOGS,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Serve an image model behind an OpenAI-compatible images endpoint, until Ctrl-C.

    Waits until it has made an image, then prints the address: base_url of tools.diffusion or tools.edit, with
    provider openai. Workers that run diffusers pipelines in their own processes need no endpoint.
    """
    with output(as_json) as (console, result):
        from coordinator.serve import image_servers
        from coordinator.serve.serving import image_model

        served = [image_model(server, model, host=host, port=port, gpus=gpus)]
        _serve(served, logs, timeout_s, dry_run, console, result, image_servers.probe_server, "made an image")


def _serve(
    served: Sequence[ServerSpec],
    logs: Path,
    timeout_s: float,
    dry_run: bool,
    console: Console,
    result: dict[str, Any],
    probe_server: Callable[[ServerSpec], float],
    proven: str,
) -> None:
    result["servers"] = [
        {"name": one.name, "url": one.url, "model": one.model, "command": one.command, "env": dict(one.env)}
        for one in served
    ]
    if dry_run:
        for one in served:
            env = " ".join(f"{name}={shlex.quote(value)}" for name, value in one.env.items())
            line = f"{env} {shlex.join(one.command)}".strip()
            print_line(console, line, markup=False)
        return
    from coordinator.host.signals import Stopped, StopSignals
    from coordinator.serve.servers import Servers

    with StopSignals():
        try:
            with Servers(served, logs) as servers:
                for one in served:
                    _say(console, f"starting the {one.name}: {one.model} (log: {servers.log(one)})")
                with Stages(make_console(stderr=True), LINE_EVERY_S) as stages:

                    def show_loading(one: ServerSpec) -> None:
                        line = plain(servers.last_line(one))[:LINE]
                        stages.step(f"loading the {one.name}", None, line)

                    servers.wait_ready(
                        timeout_s, lambda one: stages.notify(f"the {one.name} is up"), show_loading
                    )
                for one in served:
                    seconds = probe_server(one)
                    _say(console, f"the {one.name} {proven} in {seconds:.1f} s")
                for one in served:
                    setting = f"export {one.variable}={one.url}" if one.variable else f"base_url: {one.url}"
                    _say(console, f"  {setting}    # model: {one.model}")
                _say(console, "ready; Ctrl-C stops them")
                servers.watch()
        except Stopped:
            _say(console, "stopped; nothing it started is left")


def _say(console: Console, line: str) -> None:
    print_line(console, line, markup=False)
