"""The four variants of `llmi bench overlap`, simulated: the ledgers that plausible runs would leave, at once.

Deterministic: the requests of each document and their times follow from its name, in all variants alike.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random

from overlap_ledgers import Book

from llmi.load.overlap.run import VariantRun

SLOTS = {"search": 4, "diffusion": 12, "edit": 6, "code": 2, "judge_text": 8, "judge_image": 10}
MEAN_S = {"search": 1.0, "diffusion": 4.0, "edit": 4.0, "code": 0.3, "judge_text": 2.0, "judge_image": 3.0}
FAST_S = dict.fromkeys(MEAN_S, 0.05)
GROUPS, N = 6, 4  # a batch
SEQUENCES, SEGMENT_S = 16, (0.4, 1.4)
TRAIN_S, SYNC_S = 4.0, 0.6
STEPS, AHEAD = 8, 2  # batches that are written before they are needed, in the asynchronous variants
Then = Callable[[], None]


class Clock:
    """What is to happen, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Then]] = []
        self._number = count()

    def after(self, seconds: float, then: Then) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._number), then))

    def run(self) -> None:
        while self._due:
            self.now, _, then = heapq.heappop(self._due)
            then()


class Slots:
    """A resource with some slots and a queue. An entered task gets a `leave` to call."""

    def __init__(self, free: int):
        self._free = free
        self._line: deque[Callable[[Then], None]] = deque()

    def enter(self, enter: Callable[[Then], None]) -> None:
        self._line.append(enter)
        self._next()

    def _next(self) -> None:
        while self._free and self._line:
            self._free -= 1
            self._line.popleft()(self._leave)

    def _leave(self) -> None:
        self._free += 1
        self._next()


class All:
    """Calls `then` at the `of`-th call of `one`."""

    def __init__(self, of: int, then: Then):
        self._left, self._then = of, then
        if not of:
            then()

    def one(self) -> None:
        self._left -= 1
        if not self._left:
            self._then()


class Simulation:
    """One variant. `width`: threads for tools and for judges; none in the asynchronous variants."""

    def __init__(self, mean_s: dict[str, float], slots: dict[str, int], width: tuple[int, int] | None = None):
        self.clock, self.book = Clock(), Book()
        self._mean_s = mean_s
        self._queues = {queue: Slots(free) for queue, free in slots.items()}
        self._generator = Slots(SEQUENCES)
        self._threads = [Slots(threads) for threads in width or (10_000, 10_000)]
        self.ended: set[str] = set()
        self._waiting: Then | None = None

    def batch(self, step: int) -> list[str]:
        return [f"s{step}g{group}_{n}" for group in range(GROUPS) for n in range(N)]

    def tags(self, name: str) -> list[str]:
        random = Random(name)
        tags = random.choices(["search", "diffusion", "code"], [0.3, 0.55, 0.15], k=random.randint(1, 3))
        return tags + ["edit"] * ("diffusion" in tags and random.random() < 0.35)

    def write(self, name: str, then: Then, tag: Callable[[int], None] = lambda _: None) -> None:
        """All segments, one after the other; `tag` is called with each tag that closed."""
        random, spans, last = Random("text" + name), [], len(self.tags(name))

        def segment(number: int) -> None:
            asked = self.clock.now

            def wrote(leave: Then) -> None:
                leave()
                spans.append((asked, self.clock.now))
                if number < last:
                    tag(number)
                    segment(number + 1)
                else:
                    self.book.rollout(name, *spans, state="cancelled", step=0)
                    then()

            seconds = random.uniform(*SEGMENT_S)
            self._generator.enter(lambda leave: self.clock.after(seconds, lambda: wrote(leave)))

        segment(0)

    def ask(self, owner: str, kind: str, index: int, then: Then) -> None:
        """Through a thread of the client, if there are such, and a slot of the queue."""
        random = Random(f"{owner}{kind}{index}")
        seconds = random.lognormvariate(0, 0.5) * self._mean_s[kind] / 1.13

        def post(leave_thread: Then) -> None:
            posted = self.clock.now

            def serve(leave: Then) -> None:
                started = self.clock.now

                def done() -> None:
                    self.book.request(owner, kind, posted, started, self.clock.now, index)
                    leave()
                    leave_thread()
                    then()

                self.clock.after(seconds, done)

            self._queues[kind].enter(serve)

        self._threads[kind.startswith("judge")].enter(post)

    def tool(self, name: str, index: int, then: Then) -> None:
        """The tag of this index, and after a picture the edit of it."""
        tags = self.tags(name)
        edited = tags[-1] == "edit" and index == tags.index("diffusion")
        edit = (lambda: self.ask(name, "edit", len(tags) - 1, then)) if edited else then
        self.ask(name, tags[index], index, edit)

    def own_tags(self, name: str) -> list[int]:
        """Tags that wait for no other."""
        return [index for index, tag in enumerate(self.tags(name)) if tag != "edit"]

    def end(self, name: str) -> None:
        self.ended.add(name)
        if self._waiting:
            self._waiting()

    def train(self, step: int, names: list[str], began: float, then: Then) -> None:
        """Wait for `names`, train on them, send the weights."""

        def ready() -> None:
            if not self.ended.issuperset(names):
                return
            self._waiting, waited = None, self.clock.now
            for name in names:
                self.book.ledger.rollouts[name].state, self.book.ledger.rollouts[name].step = "trained", step
            seconds = TRAIN_S + Random(step).uniform(-0.3, 0.3) + SYNC_S
            self.book.step(step, (began, waited), step_s=waited + seconds - began, sync_s=SYNC_S)
            self.clock.after(seconds + 0.1, then)

        self._waiting = ready
        ready()


def phased(step: int, variant: Simulation) -> None:
    """One step after the other, each in four phases."""
    if step > STEPS:
        return
    names, began = variant.batch(step), variant.clock.now

    def train() -> None:
        variant.train(step, names, began, lambda: phased(step + 1, variant))

    def judges() -> None:
        variant.ended.update(names)
        left = All(2 * len(names), train)
        for name in names:
            variant.ask(name, "judge_text", 0, left.one)
            variant.ask(name, "judge_image", 0, left.one)

    def tools() -> None:
        for name in names:
            variant.book.ledger.rollouts[name].submitted_step = step
        asked = [(name, index) for name in names for index in variant.own_tags(name)]
        left = All(len(asked), judges)
        for name, index in asked:
            variant.tool(name, index, left.one)

    left = All(len(names), tools)
    for name in names:
        variant.write(name, left.one)


def coupled(name: str, variant: Simulation) -> None:
    """Tools when the text is complete, judges when the document is."""

    def judges() -> None:
        left = All(2, lambda: variant.end(name))
        variant.ask(name, "judge_text", 0, left.one)
        variant.ask(name, "judge_image", 0, left.one)

    def tools() -> None:
        left = All(len(variant.own_tags(name)), judges)
        for index in variant.own_tags(name):
            variant.tool(name, index, left.one)

    variant.write(name, tools)


def llmi(name: str, variant: Simulation) -> None:
    """Everything as soon as it can be."""
    left = All(2, lambda: variant.end(name))
    pictures = All(1 + len(variant.own_tags(name)), lambda: variant.ask(name, "judge_image", 0, left.one))

    def tag(index: int) -> None:
        if index in variant.own_tags(name):
            variant.tool(name, index, pictures.one)

    def written() -> None:
        pictures.one()
        variant.ask(name, "judge_text", 0, left.one)

    variant.write(name, written, tag)


def asynchronous(
    step: int, variant: Simulation, rollout: Callable[[str, Simulation], None], ahead: int
) -> None:
    """A batch is added at each step; the oldest is trained on."""
    if step > STEPS:
        return
    began = variant.clock.now
    for batch in [step + ahead] if step > 1 else range(1, 2 + ahead):
        for name in variant.batch(batch):
            rollout(name, variant)
    variant.train(step, variant.batch(step), began, lambda: asynchronous(step + 1, variant, rollout, ahead))


def simulate(mean_s: dict[str, float] = MEAN_S) -> dict[str, VariantRun]:
    """The four variants by name."""
    wide = sum(SLOTS[q] for q in ("search", "diffusion", "edit", "code")), 18
    runs = {}
    for name in ("blocking", "blocking_wide", "coupled", "llmi"):
        width = {"blocking": (6, 8), "blocking_wide": wide}.get(name)
        variant = Simulation(mean_s, SLOTS, width)
        if width:
            phased(1, variant)
        else:
            # Rollouts that wait for judges hold places in the coupled variant: fewer are under way.
            asynchronous(
                1, variant, {"coupled": coupled, "llmi": llmi}[name], 1 if name == "coupled" else AHEAD
            )
        variant.clock.run()
        runs[name] = variant.book.run(
            name, samples_per_step=GROUPS * N, slots=SLOTS, warm=2, repeats=3, phased=width is not None
        )
    return runs
