"""An evaluation with real workers: author and judge are a local server, everything else is the product."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from conftest import StartWorker
from fake_services import KEY, Chat, FakeServices, png
from raw_queue import lose_queued
from waiting import wait_until

from coordinator.config.settings import ServiceConfig
from coordinator.host.redis_server import EmbeddedRedis
from evaluation.batch import submission
from evaluation.batch.batch import Batch
from evaluation.batch.progress import Evaluation, Status
from evaluation.batch.results import ItemResult
from evaluation.pages import evaluation_page
from llmi.demo.prompts.corpus import write_dataset
from workers.broker.claims import claim, requeue
from workers.errors import Cause, ConfigError
from workers.messages import Failure
from workers.settings import QueueSettings

pytestmark = pytest.mark.long

CHAT = "/v1/chat/completions"
WAIT_S = 60.0
TEXT = [
    "The heron stands in the reeds at dawn.\n",
    "<imgen>{'source': 'search', 'description': 'a grey heron', 'params': {'query': 'grey heron'}}</imgen>",
    "\nThen it flies home.",
]


@pytest.fixture
def services() -> Iterator[FakeServices]:
    with FakeServices() as server:
        server.chat = Chat(pieces=TEXT)
        server.results = [
            {"original": f"{server.url}/picture.png", "title": "Grey heron", "link": "https://example.org"}
        ]
        yield server


@pytest.fixture
def config(
    services: FakeServices, config_file: Path, queue_settings: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> ServiceConfig:
    """A configuration whose author, judge and search are the local server, as the workers read it."""
    monkeypatch.setenv("SERP_API_KEY", KEY)
    document = json.loads(config_file.read_text()) | {
        "tools": {
            "search": {"provider": "serpapi", "base_url": services.url, "allow_private_addresses": True}
        },
        "author": {"provider": "openai", "base_url": f"{services.url}/v1", "model": "served-author"},
        "rubric": {"provider": "openai", "base_url": f"{services.url}/v1", "api_key_env": ""},
    }
    config_file.write_text(json.dumps(document))
    return ServiceConfig.model_validate(document)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Two items of words, one with a picture; three criteria each, all different."""
    (tmp_path / "boat.png").write_bytes(png("navy"))
    items = [{"prompt": f"The heron, part {n}."} for n in range(2)]
    items.append({"prompt": "The boat <image> at sea.", "images": ["boat.png"]})
    for number, item in enumerate(items):
        item.update({f"r{n}": f"Criterion {number}.{n}: the heron is named." for n in (1, 2, 3)})
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(items))
    return path


Submit = Callable[..., tuple[Evaluation, list[str]]]


@pytest.fixture
def submit(config: ServiceConfig, bench: Path, tmp_path: Path) -> Submit:
    def run(name: str = "e", benchmark: Path = bench, limit: int | None = None) -> Any:
        return submission.submit(config, benchmark, name, str(tmp_path / "evals"), limit, lambda line: None)

    return run


def status_when(evaluation: Evaluation, done: Callable[[Status], bool]) -> Status:
    """The first status of which `done` is true."""
    seen: list[Status] = []

    def ended() -> bool:
        seen.append(evaluation.poll())
        return done(seen[-1])

    wait_until(ended, timeout_s=WAIT_S, every_s=0.1)
    return seen[-1]


def finished(evaluation: Evaluation) -> Status:
    return status_when(evaluation, lambda status: not status.in_progress)


def asked(services: FakeServices) -> Counter[str]:
    """How often the judge was asked for each criterion."""
    bodies = [call.body for call in services.calls(CHAT) if "response_format" in call.body]
    return Counter(map(criterion, bodies))


def criterion(body: dict[str, Any]) -> str:
    """What the judge is asked for in this call."""
    return body["messages"][1]["content"][-1]["text"].splitlines()[1]


def written(services: FakeServices) -> int:
    """How many texts the author was asked for."""
    return sum("response_format" not in call.body for call in services.calls(CHAT))


def test_items_are_written_and_judged_and_shown(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    evaluation, posted = submit()
    assert posted == ["0001", "0002", "0003"]
    assert submit()[1] == []  # they are queued
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    status = finished(evaluation)
    assert (status.complete, status.judged, status.criteria, status.failures) == (3, 9, 9, {})
    assert set(asked(services).values()) == {1}
    assert len(asked(services)) == 9
    assert written(services) == 3
    assert submit()[1] == []  # nothing is left to do

    judge = next(call.body for call in services.calls(CHAT) if "Criterion 2" in json.dumps(call.body))
    pictures = [part for part in judge["messages"][1]["content"] if part["type"] == "image_url"]
    assert len(pictures) == 2  # the given boat and the found heron

    page, _, numbers = evaluation_page.write(evaluation.batch)
    assert numbers["score"]["value"] == 10.0
    assert (numbers["score"]["judged"], numbers["score"]["of"]) == (9, 9)
    assert numbers["judges_that_spoke"] == ["served-judge"]
    text = Path(page).read_text()
    assert text.index("at dawn") < text.index("a grey heron") < text.index("flies home")
    assert text.count("data:image/") == 4  # three found herons, one given boat
    assert base64.b64encode(png("navy")).decode()[:40] in text


def test_all_items_are_written_at_the_same_time(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    """Regression: the original evaluated one item after the other."""
    services.chat = Chat(pieces=TEXT[:1], finish=None, then="stall")
    evaluation, _ = submit()
    worker(["evaluate"], 4)
    status = status_when(evaluation, lambda status: written(services) == 3)
    assert services.gone == 0, "a text was given up"
    assert status.complete == 0


def test_a_full_queue_is_waited_for(
    worker: StartWorker, services: FakeServices, config: ServiceConfig, bench: Path, tmp_path: Path
) -> None:
    """Three items, and a queue that holds one: a worker makes room for the rest."""
    narrow = config.model_copy(update={"queue": config.queue.model_copy(update={"max_waiting": 1})})
    said: list[str] = []
    submitting = threading.Thread(
        target=submission.submit, args=(narrow, bench, "e", str(tmp_path / "evals"), None, said.append)
    )
    submitting.start()
    wait_until(lambda: said)
    assert "2 items wait for room" in said[0]
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    submitting.join(WAIT_S)
    assert not submitting.is_alive()
    assert finished(Evaluation(Batch(str(tmp_path / "evals/e")))).complete == 3


def test_no_verdict_is_repeated_when_a_worker_dies(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    services.judge.delay_s = 5.0  # longer than the lease: verdicts are under way when the item comes again
    worker(["search", "judge_rubric"], 16)
    evaluation, _ = submit()
    first = worker(["evaluate"], 4)
    status_when(evaluation, lambda status: len(asked(services)) >= 5)
    first.kill()
    worker(["evaluate"], 4)
    status = finished(evaluation)
    assert (status.complete, status.judged) == (3, 9)
    assert len(asked(services)) == 9
    assert set(asked(services).values()) == {1}
    texts = {item.item_id: evaluation.batch.document(item.item_id) for item in evaluation.manifest.items}
    assert all(texts.values())


def test_each_criterion_counts_once_when_a_judging_worker_dies(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    services.judge.delay_s = 30.0  # it never answers the one that dies
    worker(["search"])
    worker(["evaluate"], 4)
    victim = worker(["judge_rubric"], 16)
    evaluation, _ = submit()
    status_when(evaluation, lambda status: len(asked(services)) == 9)
    assert evaluation.poll().judged == 0, "all nine were to be under way"
    victim.kill()
    services.judge.delay_s = 0.0
    worker(["judge_rubric"], 16)
    status = finished(evaluation)
    assert (status.complete, status.judged, status.criteria, status.failures) == (3, 9, 9, {})
    assert set(asked(services).values()) == {2}  # once by each worker
    numbers = evaluation_page.write(evaluation.batch)[2]
    assert (numbers["score"]["judged"], numbers["score"]["of"]) == (9, 9)
    assert written(services) == 3


def test_a_redis_that_is_killed_and_comes_back_loses_nothing(
    worker: StartWorker, services: FakeServices, config: ServiceConfig, config_file: Path, bench: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    services.judge.delay_s = 5.0
    with EmbeddedRedis(tmp_path / "redis") as server:
        queue = config.queue.model_copy(update={"redis_url": server.url})
        changed = config.model_copy(update={"queue": queue})
        config_file.write_text(changed.model_dump_json())
        worker(["search", "judge_rubric"], 4)
        worker(["evaluate"], 2)
        folder = str(tmp_path / "evals")
        evaluation, _ = submission.submit(changed, bench, "e", folder, None, lambda line: None)
        status_when(evaluation, lambda status: len(asked(services)) >= 4)
        assert evaluation.poll().complete == 0
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        server.start()
        status = finished(evaluation)
        assert (status.complete, status.judged, status.criteria, status.failures) == (3, 9, 9, {})
        assert len(asked(services)) == 9
        assert written(services) >= 3
        numbers = evaluation_page.write(evaluation.batch)[2]
        assert (numbers["score"]["judged"], numbers["score"]["of"]) == (9, 9)


def test_a_second_round_requests_only_the_missing_verdicts(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    services.judge.status = 400  # an answer that is not worth asking again for
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    evaluation, _ = submit()
    status_when(evaluation, lambda status: len(asked(services)) == 9 or not status.in_progress)
    status = finished(evaluation)
    assert (status.complete, status.incomplete, status.judged) == (0, 3, 0)
    assert status.failures == {"bad_answer": 9}
    numbers = evaluation_page.write(evaluation.batch)[2]
    assert numbers["score"]["value"] is None
    assert (numbers["score"]["judged"], numbers["score"]["of"]) == (0, 9)

    services.judge.status = 200
    services.seen.clear()
    evaluation, posted = submit()
    assert posted == ["0001", "0002", "0003"]
    status = finished(evaluation)
    assert (status.complete, status.judged, status.failures) == (3, 9, {})
    assert written(services) == 0  # the documents are there
    assert set(asked(services).values()) == {1}


def test_a_document_that_the_judge_refuses_meets_no_criterion(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    services.judge.answer = "I'm sorry, but I can't assist with that."
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    evaluation, _ = submit()
    status = finished(evaluation)
    assert (status.complete, status.judged, status.refused, status.failures) == (3, 9, 9, {})
    assert set(asked(services).values()) == {1}
    results = Batch(evaluation.batch.url).results().values()
    verdicts = [one for result in results for one in result.verdicts.values()]
    assert [point for result in results for point in result.points] == [0.0] * 9
    assert all("refuses" in one.failure.detail for one in verdicts)


def test_an_unreadable_verdict_is_retried_a_few_times(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    received: Counter[str] = Counter()

    def verdict(body: dict[str, Any]) -> str:
        received[criterion(body)] += 1
        return "Score: 2" if received[criterion(body)] < 3 else '{"reason": "seen", "score": 1}'

    services.judge.verdict = verdict
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 1)
    evaluation, _ = submit(limit=1)
    status = finished(evaluation)
    assert (status.complete, status.judged) == (1, 3)
    assert list(asked(services).values()) == [3, 3, 3]
    assert written(services) == 1


def test_a_document_that_cannot_be_written_is_missing_and_not_judged(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    services.script[CHAT] = [(401, {}, {"error": {"message": "no such key"}})]
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    evaluation, _ = submit(limit=1)
    status = finished(evaluation)
    assert (status.incomplete, status.judged, status.failures) == (1, 0, {"auth": 1})
    assert not asked(services)
    page, _, numbers = evaluation_page.write(evaluation.batch)
    assert numbers["items"][0]["failure"]["cause"] == "auth"
    assert "No document" in Path(page).read_text()

    evaluation, posted = submit(limit=1)
    assert posted == ["0001"]
    assert finished(evaluation).complete == 1


def test_an_author_that_refuses_an_item_gets_0_and_is_not_retried(
    worker: StartWorker, services: FakeServices, submit: Submit
) -> None:
    services.script[CHAT] = [(400, {}, {"error": {"code": "content_filter", "message": "not allowed"}})]
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 1)
    evaluation, _ = submit(limit=2)
    status = finished(evaluation)
    assert (status.complete, status.judged, status.refused, status.failures) == (2, 6, 3, {})
    assert submit(limit=2)[1] == []
    numbers = evaluation_page.write(evaluation.batch)[2]
    assert (numbers["score"]["value"], numbers["score"]["judged"]) == (5.0, 6)
    assert numbers["refused"] == {"documents": 1, "points": 3}


def test_a_document_that_lost_a_picture_to_infrastructure_is_not_judged(
    worker: StartWorker, services: FakeServices, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.script["/search"] = [(401, {}, {"error": "Invalid API key."})]
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    evaluation, _ = submit(limit=1)
    status = finished(evaluation)
    assert (status.incomplete, status.failures) == (1, {"auth": 1})
    assert evaluation.batch.document("0001") is None
    assert not asked(services)


def test_an_item_whose_worker_always_dies_ends_with_a_cause(
    worker: StartWorker, services: FakeServices, submit: Submit, queue_settings: QueueSettings
) -> None:
    """It was claimed and lost `max_attempts` times already."""
    evaluation, _ = submit(limit=1)
    request_id = evaluation.manifest.request_id("0001", 0)
    with redis.Redis.from_url(queue_settings.url) as client:
        for _ in range(queue_settings.max_attempts):
            [one] = claim(client, ["evaluate"], 1, "w", 60.0)
            assert one.request_id == request_id
            requeue(client, [one], "lost")
    worker(["evaluate"], 1)
    status = finished(evaluation)
    assert (status.incomplete, status.failures) == (1, {"worker_lost": 1})
    assert evaluation.batch.result("0001") is not None


def test_a_message_that_redis_lost_is_posted_again(
    worker: StartWorker, services: FakeServices, submit: Submit, queue_settings: QueueSettings
) -> None:
    evaluation, _ = submit(limit=1)
    with redis.Redis.from_url(queue_settings.url) as client:
        lose_queued(client, "evaluate")
    assert evaluation.poll().lost == 1
    status_when(evaluation, lambda status: status.queued == 1)
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 1)
    assert finished(evaluation).complete == 1


def test_a_second_round_that_redis_lost_is_in_progress(submit: Submit, queue_settings: QueueSettings) -> None:
    """Regression: the item, whose first round had left something missing, counted as ended."""
    evaluation, _ = submit(limit=1)
    with redis.Redis.from_url(queue_settings.url) as client:
        lose_queued(client, "evaluate")
        evaluation.batch.save_result(ItemResult(item_id="0001", round=0, failure=Failure(cause=Cause.AUTH)))
        assert evaluation.poll().incomplete == 1
        evaluation, posted = submit(limit=1)
        assert posted == ["0001"]
        lose_queued(client, "evaluate")
        status = evaluation.poll()
        assert (status.in_progress, status.lost, status.incomplete) == (True, 1, 0)
    status_when(evaluation, lambda status: status.queued == 1)


@pytest.mark.parametrize(("file", "weights"), [("test", (1.4, 0.6)), ("test_mm", (1.5, 0.5))])
def test_the_training_reward_as_a_benchmark(
    worker: StartWorker, submit: Submit, tmp_path: Path, file: str, weights: tuple[float, float]
) -> None:
    """Text, and with pictures: each with its published weights, by the judges that the page names."""
    parquet = write_dataset(tmp_path / "prompts", seed=1, train=1, test=2)[file]
    worker(["search", "judge_text", "judge_image"], 8)
    worker(["evaluate"], 4)
    evaluation, _ = submit("rewards", parquet)
    status = finished(evaluation)
    assert (status.complete, status.judged, status.criteria) == (2, 2, 2)
    page, _, numbers = evaluation_page.write(evaluation.batch)
    assert 0 <= numbers["score"]["value"] <= 1
    assert set(numbers["terms"]) >= {"r_num", "L"}
    assert numbers["score"]["of"] == 2
    assert numbers["judges_that_spoke"] == ["rules"]
    assert "Verdicts by rules." in Path(page).read_text()
    breakdowns = [item["reward"]["breakdown"] for item in numbers["items"]]
    assert {tuple(one["axis_weights"].values()) for one in breakdowns} == {weights}


def test_workers_with_other_judges_than_the_evaluations_give_no_verdict(
    worker: StartWorker, config: ServiceConfig, tmp_path: Path
) -> None:
    parquet = write_dataset(tmp_path / "prompts", seed=1, train=1, test=1)["test"]
    judge = {"provider": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "reader"}
    changed = ServiceConfig.model_validate({**config.model_dump(mode="json"), "judges": {"text": judge}})
    worker(["search", "judge_text", "judge_image"], 8)
    worker(["evaluate"])
    folder = str(tmp_path / "evals")
    evaluation, _ = submission.submit(changed, parquet, "e", folder, None, lambda line: None)
    status = finished(evaluation)
    assert (status.complete, status.judged, status.failures) == (0, 0, {"bad_message": 1})


def test_another_benchmark_under_the_same_name_is_refused(submit: Submit, tmp_path: Path) -> None:
    evaluation, _ = submit(limit=2)
    with pytest.raises(ConfigError, match="other items"):
        submit(limit=1)
    assert len(Batch(evaluation.batch.url).manifest().items) == 2


def test_submit_status_and_report_commands(
    worker: StartWorker, config: ServiceConfig, config_file: Path, bench: Path, tmp_path: Path
) -> None:
    """As a user would: submit, watch, report; every command prints one JSON object."""
    settings = tmp_path / "evaluation.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    def llmi(*arguments: str) -> dict[str, Any]:
        command = [
            sys.executable,
            "-c",
            "from coordinator.cli.main import main; main()",
            "evaluate",
            *arguments,
        ]
        ran = subprocess.run(
            [*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S
        )
        assert ran.returncode == 0, ran.stderr
        return {**json.loads(ran.stdout), "said": ran.stderr}

    first = llmi("submit", "bench.json", "--config", "evaluation.yaml", "--name", "e")
    assert (first["posted"], first["queued"], first["items"]) == (3, 3, 3)
    assert "no worker serves the queue 'evaluate' yet" in first["said"]
    worker(["search", "judge_rubric"], 8)
    worker(["evaluate"], 4)
    assert llmi("status", "e", "--watch")["complete"] == 3
    again = llmi("submit", "bench.json", "--config", "evaluation.yaml", "--name", "e")
    assert (again["posted"], again["complete"]) == (0, 3)
    assert "no worker" not in again["said"]
    received = llmi("report", "e")
    assert received["score"]["value"] == 10.0
    assert Path(received["page"]).read_text().startswith("<!doctype html>")
