"""The exception that ended a trainer, found in its log."""

from __future__ import annotations

from coordinator.run.trainer import cause, relevant_tail

# As Ray 2.60 writes it: the task of an actor fails in the task of another one.
IN_TASKS = """\
2026-11-30 09:06:00,370\tINFO worker.py:2038 -- Started a local Ray instance.
\x1b[36m(Runner pid=14040)\x1b[0m hello from the runner
Error executing job with overrides: ['trainer.nnodes=1']
Traceback (most recent call last):
  File "main_ppo.py", line 23, in <module>
    ray.get(Runner.remote().run.remote())
  File "ray/_private/worker.py", line 1053, in get_objects
    raise value.as_instanceof_cause()
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::Runner.run()\x1b[39m (pid=14040, ip=192.0.2.2)
           ^^^^^^^^^^^^^^^^^^^^^
  File "runner.py", line 15, in run
    ray.get(Inner.remote().work.remote())
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::Inner.work()\x1b[39m (pid=14147, ip=192.0.2.2)
  File "inner.py", line 9, in deep
    raise ValueError("the weights\\nare gone")
ValueError: the weights
are gone

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""
EXIT = """\
Exception ignored in atexit callback: <function exit at 0x7f>
Traceback (most recent call last):
  File "exit.py", line 22, in exit
    1/0
ZeroDivisionError: division by zero
"""
TRACKER = """\
Traceback (most recent call last):
  File "multiprocessing/resource_tracker.py", line 239, in main
    cache[rtype].remove(name)
KeyError: '/psm_7d1f'
"""
THREAD = """\
Exception in thread Thread-7 (poll):
Traceback (most recent call last):
  File "poll.py", line 1, in poll
    poll()
RuntimeError: cannot schedule new futures after shutdown
"""
DIED = """\
Traceback (most recent call last):
  File "main_ppo.py", line 23, in <module>
    ray.get(runner)
ray.exceptions.RayTaskError(ActorDiedError): ray::Runner.run() (pid=1, ip=192.0.2.2)
  File "runner.py", line 15, in run
    ray.get(inner)
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
"""
IN_ACTOR = """\
(Inner pid=7) Traceback (most recent call last):
(Inner pid=7)   File "inner.py", line 1, in load
(Inner pid=7)     load()
(Inner pid=7) torch.OutOfMemoryError: CUDA out of memory
"""


def test_the_exception_of_a_task_is_shown_and_not_its_consequences() -> None:
    for noise in ("", EXIT, TRACKER, THREAD, EXIT * 3 + TRACKER + THREAD):
        assert cause(IN_TASKS + noise) == "ValueError: the weights"
        tail = relevant_tail(IN_TASKS + noise)
        assert tail.endswith("ValueError: the weights\nare gone")
        assert 'File "inner.py", line 9, in deep' in tail
        assert "\x1b" not in tail


def test_a_dead_actor_is_explained_by_its_own_traceback() -> None:
    assert cause(IN_ACTOR + DIED + EXIT) == "torch.OutOfMemoryError: CUDA out of memory"
    assert cause(DIED + EXIT).startswith("ray.exceptions.ActorDiedError")


def test_an_error_that_follows_from_another_is_not_the_cause() -> None:
    engine = (
        "Traceback (most recent call last):\n  File x\nRuntimeError: Engine failed. See root cause above.\n"
    )
    assert cause(IN_ACTOR + engine) == "torch.OutOfMemoryError: CUDA out of memory"
    assert cause(engine).startswith("RuntimeError")


def test_a_chain_of_exceptions_is_shown_whole() -> None:
    link = "\nThe above exception was the direct cause of the following exception:\n\n"
    log = f"{TRACKER}{link}Traceback (most recent call last):\n  File y\nRuntimeError: so\n"
    assert cause(log) == "RuntimeError: so"
    assert "KeyError: '/psm_7d1f'" in relevant_tail(log)


def test_an_interrupt_is_not_the_cause() -> None:
    log = f"{TRACKER}Traceback (most recent call last):\n  File y\nKeyboardInterrupt\n"
    assert cause(log) == "KeyError: '/psm_7d1f'"


def test_a_log_without_an_exception_names_none() -> None:
    assert cause("one\ntwo\n") == cause("") == ""
    assert relevant_tail("") == ""


def test_a_traceback_that_was_cut_off_is_no_cause() -> None:
    assert cause(TRACKER + "Traceback (most recent call last):\n") == "KeyError: '/psm_7d1f'"


def test_tail_of_a_log_is_its_last_traceback_without_noise():
    log = "\x1b[36m(TaskRunner pid=3)\x1b[0m noise\n" * 100
    log += "Traceback (most recent call last):\n  old\nValueError: old\n"
    log += "(TaskRunner pid=3) Traceback (most recent call last):\n  File x\nValueError: the cause\n"
    assert relevant_tail(log) == "Traceback (most recent call last):\n  File x\nValueError: the cause"


def test_tail_of_a_log_without_traceback_is_its_last_lines():
    assert relevant_tail("\n".join(map(str, range(100))), lines=3) == "97\n98\n99"


def test_long_traceback_keeps_both_ends():
    log = "Traceback (most recent call last):\n" + "\n".join(f"  {i}" for i in range(200)) + "\nKeyError: 'x'"
    tail = relevant_tail(log, lines=12).splitlines()
    assert tail[0].startswith("Traceback")
    assert tail[-1] == "KeyError: 'x'"
    assert len(tail) == 13
