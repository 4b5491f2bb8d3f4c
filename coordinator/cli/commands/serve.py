"""`llmi serve judges` and `llmi serve images`: model servers on this machine (ops/serve_*.sh call them)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from coordinator.cli.commands.output import Json, output, plain
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console

if TYPE_CHECKING:
    from coordinator.serve.serving import Served

app = typer.Typer(no_args_is_help=True, help="Serve the judges or an image model on this machine.")
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every node.")]
Wait = Annotated[float, typer.Option("--ready-s", min=1, help="How long loading may take, in seconds.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Print the commands; start nothing.")]
Logs = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the servers' logs.")]
LOGS = Path("runs/servers")
LINE_EVERY_S, LINE = 30.0, 120  # of a server's log: every so many seconds, so many characters


class Device(StrEnum):
    cuda = "cuda"
    cpu = "cpu"


class Which(StrEnum):
    text = "text"
    image = "image"


class Server(StrEnum):
    vllm_omni = "vllm-omni"
    sglang = "sglang"


@app.command()
def judges(
    only: Annotated[Which | None, typer.Option(help="One judge, where each has a node of its own.")] = None,
    text_model: Annotated[str, typer.Option(help="The text judge \\[default: the published one].")] = "",
    image_model: Annotated[str, typer.Option(help="The image judge \\[default: the published one].")] = "",
    text_port: Annotated[int, typer.Option(min=1, max=65_535)] = 8001,
    image_port: Annotated[int, typer.Option(min=1, max=65_535)] = 8002,
    host: Host = "127.0.0.1",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs for each judge.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images in one prompt, at most.")] = 20,
    tokens: Annotated[int, typer.Option(min=1024, help="Length of a prompt with its answer.")] = 32_768,
    device: Annotated[Device, typer.Option(help="cpu: tiny untaught models, to try the path.")] = Device.cuda,
    ready_s: Wait = 3600.0,
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
            [only.value] if only else ["text", "image"],
            models={"text": text_model, "image": image_model},
            ports={"text": text_port, "image": image_port},
            host=host,
            tensor_parallel=tensor_parallel,
            images=images,
            tokens=tokens,
            device=device.value,
            dry_run=dry_run,
        )
        if dry_run and device is Device.cuda:
            result["lacking"] = judge_servers.lacking(len(served), tensor_parallel)
            if result["lacking"]:
                _say(
                    console,
                    f"would not start here: {result['lacking']}; lower --tensor-parallel, name one "
                    "judge with --only, or try --device cpu",
                )
        _serve(served, logs, ready_s, dry_run, console, result, judge_servers.prove, "gave a verdict")


@app.command()
def images(
    model: Annotated[str, typer.Argument(help="A model that the server knows, such as Qwen/Qwen-Image.")],
    server: Annotated[Server, typer.Option(help="The program that serves it.")] = Server.vllm_omni,
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8091,
    host: Host = "127.0.0.1",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the model.")] = 1,
    ready_s: Wait = 3600.0,
    logs: Logs = LOGS,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Serve an image model behind an OpenAI-compatible images endpoint, until Ctrl-C.

    Waits until it has made an image, then prints what to write into the configuration.
    Name the address as base_url of tools.diffusion or tools.edit, with provider openai. Only where an
    endpoint is wanted: workers run diffusers pipelines in their own processes without one.
    """
    with output(as_json) as (console, result):
        from coordinator.serve import image_servers
        from coordinator.serve.serving import image_model

        served = [image_model(server.value, model, host=host, port=port, gpus=gpus)]
        _serve(served, logs, ready_s, dry_run, console, result, image_servers.prove, "made an image")


def _serve(
    served: Sequence[Served],
    logs: Path,
    ready_s: float,
    dry_run: bool,
    console: Console,
    result: dict[str, Any],
    prove: Callable[[Served], float],
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
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    from coordinator.host.signals import Stopped, StopSignals
    from coordinator.serve.servers import Servers

    with StopSignals():
        try:
            with Servers(served, logs) as servers:
                for one in served:
                    _say(console, f"starting the {one.name}: {one.model} (log: {servers.log(one)})")
                with Stages(make_console(stderr=True), LINE_EVERY_S) as stages:

                    def look(one: Served) -> None:
                        line = plain(servers.last_line(one))[:LINE]
                        stages.step(f"the {one.name} is being loaded", None, line)

                    servers.wait_ready(ready_s, lambda one: stages.say(f"the {one.name} is up"), look)
                for one in served:
                    seconds = prove(one)
                    _say(console, f"the {one.name} {proven} in {seconds:.1f} s")
                for one in served:
                    said = f"export {one.variable}={one.url}" if one.variable else f"base_url: {one.url}"
                    _say(console, f"  {said}    # model: {one.model}")
                _say(console, "ready; Ctrl-C stops them")
                servers.watch()
        except Stopped:
            _say(console, "stopped; nothing it started is left")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
