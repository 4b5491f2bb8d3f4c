"""Servers of judges and image models: command lines, readiness, failures, end."""

import json
import socket
import sys

import pytest

from coordinator.serve.servers import Servers
from coordinator.serve.serving import Judge, ServerSpec, image_model, judges
from workers.errors import ConfigError, InfrastructureFault

BOTH = [Judge("text", "owner/reads", 8001), Judge("image", "owner/sees", 8002)]
ANSWERS = """
import http.server, sys, time
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


def plan(gpus, tensor_parallel=2, wanted=BOTH):
    return judges(
        wanted, host="0.0.0.0", tensor_parallel=tensor_parallel, images=20, tokens=32_768, gpus=gpus
    )


def option(served, name):
    return served.command[served.command.index(name) + 1]


def test_judges_are_served_as_published_and_share_no_gpu():
    text, image = plan(["0", "1", "2", "3"])
    assert option(text, "--tensor-parallel-size") == "2"
    assert option(text, "--max-model-len") == "32768"
    assert json.loads(option(image, "--limit-mm-per-prompt")) == {"image": 20}
    assert "--limit-mm-per-prompt" not in text.command
    assert (text.env["CUDA_VISIBLE_DEVICES"], image.env["CUDA_VISIBLE_DEVICES"]) == ("0,1", "2,3")
    for one in (text, image):
        assert json.loads(option(one, "--structured-outputs-config"))["disable_any_whitespace"] is True
    assert (text.variable, image.variable) == ("LLM_JUDGE_BASE_URL", "MLLM_JUDGE_BASE_URL")
    assert text.url == "http://127.0.0.1:8001/v1"
    assert text.health == "http://127.0.0.1:8001/health"


def test_too_few_gpus_are_refused_with_a_hint():
    with pytest.raises(ConfigError, match=r"need 4, and this machine has 3.*--only"):
        plan(["0", "1", "2"])


def test_on_a_cpu_no_gpu_is_needed_and_prompts_are_short():
    text, image = plan(None)
    assert "--tensor-parallel-size" not in text.command
    assert option(image, "--max-model-len") == "4096"


def test_image_servers_have_the_documented_command_lines():
    omni = image_model("vllm-omni", "Qwen/Qwen-Image", host="127.0.0.1", port=8091, gpus=2)
    assert omni.command[:4] == ("vllm", "serve", "Qwen/Qwen-Image", "--omni")
    assert option(omni, "--tensor-parallel-size") == "2"
    sglang = image_model("sglang", "Qwen/Qwen-Image", host="127.0.0.1", port=30010, gpus=1)
    assert sglang.command[:4] == ("sglang", "serve", "--model-path", "Qwen/Qwen-Image")
    assert sglang.url == "http://127.0.0.1:30010/v1"


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def server(port, *command):
    return ServerSpec("stand-in", command, f"http://127.0.0.1:{port}/v1", "m", "")


def test_a_server_is_ready_when_it_answers_and_ends_with_the_context(tmp_path, port):
    one = server(port, sys.executable, "-c", ANSWERS, str(port))
    said = []
    with Servers([one], tmp_path) as servers:
        servers.wait_ready(30, said.append)
        with pytest.raises(ConfigError, match="a server answers there already"), Servers([one], tmp_path):
            pass
    assert said == [one]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_that_ends_is_reported_with_the_end_of_its_log(tmp_path, port):
    one = server(port, sys.executable, "-c", "import sys; sys.exit('no memory left')")
    with Servers([one], tmp_path) as servers:
        with pytest.raises(InfrastructureFault, match=r"exit code 1.*(?s:.)*no memory left"):
            servers.wait_ready(30, lambda one: None)


def test_a_local_server_is_polled_without_the_proxy(tmp_path, port, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Servers([server(port, sys.executable, "-c", ANSWERS, str(port))], tmp_path) as servers:
        servers.wait_ready(30, lambda one: None)


def test_a_server_that_never_answers_times_out(tmp_path, port):
    one = server(port, sys.executable, "-c", "import time; time.sleep(60)")
    with Servers([one], tmp_path) as servers:
        with pytest.raises(InfrastructureFault, match="does not answer"):
            servers.wait_ready(0.2, lambda one: None)


def test_a_missing_program_is_named(tmp_path, port):
    with pytest.raises(ConfigError, match="no-such-server: no such program"):
        with Servers([server(port, "no-such-server")], tmp_path):
            pass


def test_the_last_line_of_a_log_shows_the_progress_of_loading(tmp_path, port):
    one = server(port, "true")
    servers = Servers([one], tmp_path)
    assert servers.last_line(one) == ""
    servers.log(one).write_bytes(b"x" * 5000 + b"\nloading: 10%\rloading: 20%\n \xff\n\n")
    assert servers.last_line(one) == "\ufffd"
    servers.log(one).write_bytes(b"loading: 10%\rloading: 20%\n\n")
    assert servers.last_line(one) == "loading: 20%"
