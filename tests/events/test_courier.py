"""The schedule of deliveries, under a clock that the test turns: hours pass in seconds, and nobody sleeps.

The endpoint is a stand-in, since no real one can be down for ten hours here; the database is real.
"""

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from leasehold.config import Settings
from leasehold.domain.values import Batch, Webhook, WebhookSpec
from leasehold.outbound.endpoint import NoAnswer, Response
from leasehold.service import deliveries, delivery_log, events, webhooks
from leasehold.service.context import Context
from leasehold.worker.courier import Courier
from service.conftest import Clock

HOUR_S = 3600
GIVE_UP_S = 3 * HOUR_S
SINGLY = WebhookSpec(url="http://192.0.2.80/")
BATCHES = WebhookSpec(url="http://192.0.2.80/", batch=Batch(events=20))


class Killed(BaseException):
    """The control plane is dead."""


@dataclass
class Endpoint:
    """`answer` decides by the events of a request: a status, or None for no answer. `taken` are the events that it
    answered with success, `asked` how many requests there were."""

    answer: Callable[[list[dict[str, Any]]], int | None]
    die: Callable[[], None] = lambda: None
    taken: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    open: int = 0
    _request: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, _url: str) -> "Door":
        self.open += 1
        return Door(self)

    def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        self.die()
        content = json.loads(body)
        self._request = content if isinstance(content, list) else [content]
        self.asked += 1

    def answer_now(self) -> Response:
        status = self.answer(self._request)
        if status is None:
            raise NoAnswer("down")
        if status < 300:
            self.taken += self._request
        self.die()
        return Response(status, None)

    def close(self) -> None:
        self.open -= 1


class Door:
    """What a courier sees of it: `answer` is its request's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.send, self.answer, self.close = endpoint.send, endpoint.answer_now, endpoint.close


@dataclass
class World:
    """A webhook, its endpoint, and a courier that lives again when it was killed."""

    ctx: Context
    clock: Clock
    webhook: Webhook
    endpoint: Endpoint
    deaths: int = 0
    told: list[str] = field(default_factory=list)
    _courier: Courier | None = None
    _next_s: float = 0

    def tell(self, subject: str, **data: object) -> None:
        with self.ctx.db.write() as connection:
            events.emit(connection, self.ctx.now_ms(), "lease.assigned", subject, data)
        self._next_s = 0

    def run(self, seconds: float, happenings: Mapping[float, str] | None = None) -> None:
        """Lets so much time pass; at each of the instants, seconds from now, an event of that subject happens."""
        left = dict(sorted((happenings or {}).items()))
        passed = 0.0
        while passed < seconds:
            while left and next(iter(left)) <= passed:
                self.tell(left.pop(next(iter(left))))
            self._next_s = self._turn()
            step = max(self._next_s, 0.01)
            if left:
                step = min(step, max(0.01, next(iter(left)) - passed))
            step = min(step, seconds - passed)
            self.clock.advance(step)
            passed += step

    def _turn(self) -> float:
        if self._courier is None:
            self._courier = Courier(self.ctx, self.webhook.id, self.endpoint)
        try:
            return self._courier.turn()
        except Killed:
            self.deaths += 1
            self._courier = None
            return 0

    @property
    def states(self) -> dict[str, str]:
        found = delivery_log.list_deliveries(self.ctx, self.webhook.id, limit=100_000)
        return {each.event.id: each.state for each in found}

    def check_order(self) -> None:
        """The first time that each event was taken, those of a subject came in their order."""
        seen: set[str] = set()
        sequences: dict[str, list[str]] = defaultdict(list)
        for event in self.endpoint.taken:
            if event["id"] not in seen:
                seen.add(event["id"])
                sequences[event["subject"]].append(event["sequence"])
        for subject, found in sequences.items():
            assert found == sorted(found), subject


@pytest.fixture
def world(ctx: Context, clock: Clock) -> Callable[..., World]:
    def make(
        spec: WebhookSpec,
        answer: Callable[[list[dict[str, Any]]], int | None] = lambda _: 204,
        give_up_s: float = GIVE_UP_S,
    ) -> World:
        impatient = replace(ctx, settings=replace(ctx.settings, webhook_give_up_s=give_up_s))
        return World(impatient, clock, webhooks.create(ctx, spec), Endpoint(answer))

    return make


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("fresh_database", "spec"), [("sqlite", SINGLY), ("postgresql", BATCHES)], indirect=["fresh_database"]
)
def test_after_ten_hours_down_and_deaths_at_random_everything_arrives(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, spec: WebhookSpec
) -> None:
    """The control plane dies before and after requests and writes, wherever it may; the endpoint forgets nothing."""
    dice = random.Random(5)
    there = world(spec, give_up_s=Settings().webhook_give_up_s)

    def die() -> None:
        if dice.random() < 0.03:
            raise Killed

    there.endpoint.die = die
    record = deliveries.record

    def mortal_record(*arguments: Any, **more: Any) -> None:
        die()
        record(*arguments, **more)
        die()

    monkeypatch.setattr(deliveries, "record", mortal_record)
    subjects = [f"subject-{number}" for number in range(12)]
    there.run(60, {dice.uniform(0, 60): dice.choice(subjects) for _ in range(60)})
    there.endpoint.answer = lambda _: dice.choice([None, 500, 503])
    there.run(10 * HOUR_S, {dice.uniform(0, 10 * HOUR_S): dice.choice(subjects) for _ in range(120)})
    there.endpoint.answer = lambda _: 204
    there.run(15 * 60, {dice.uniform(0, 60): dice.choice(subjects) for _ in range(20)})
    assert there.deaths > 10
    stored = events.list_events(there.ctx, limit=1000)
    assert len(stored) == 200
    assert {event["id"] for event in there.endpoint.taken} == {event.id for event in stored}
    assert set(there.states.values()) == {"delivered"}
    assert len(there.states) == 200
    there.check_order()


@pytest.mark.parametrize("spec", [SINGLY, BATCHES], ids=["singly", "batches"])
def test_what_cannot_be_delivered_in_time_is_a_dead_letter_and_counted(
    world: Callable[..., World], spec: WebhookSpec
) -> None:
    there = world(spec, lambda _: None)
    there.run(0.9 * GIVE_UP_S, {number * 60: f"subject-{number % 7}" for number in range(48)})
    (progress,) = delivery_log.progress(there.ctx, there.webhook.id)
    assert progress.dead == 0
    assert progress.behind + progress.waiting == 48
    there.run(2 * GIVE_UP_S)
    (progress,) = delivery_log.progress(there.ctx, there.webhook.id)
    assert (progress.dead, progress.waiting, progress.behind) == (48, 0, 0)
    assert set(there.states.values()) == {"dead"}
    there.endpoint.answer = lambda _: 204
    there.run(120, {1: "subject-1"})
    assert len(there.endpoint.taken) == 1
    assert delivery_log.replay(there.ctx, there.webhook.id, dead=True).events == 48
    there.run(60)
    assert len(there.endpoint.taken) == 49
    assert delivery_log.progress(there.ctx, there.webhook.id)[0].dead == 0


def test_an_endpoint_that_is_down_is_asked_about_once_a_minute(world: Callable[..., World]) -> None:
    there = world(SINGLY, lambda _: None)
    for number in range(50):
        there.tell(f"subject-{number}")
    there.run(HOUR_S)
    before = there.endpoint.asked
    there.run(HOUR_S)
    assert 60 <= there.endpoint.asked - before <= 120


def test_one_event_is_tried_at_growing_distances_until_it_is_given_up(world: Callable[..., World]) -> None:
    instants: list[float] = []

    def answer(found: list[dict[str, Any]]) -> int:
        if found[0]["subject"] != "poison":
            return 204
        instants.append(there.ctx.now_ms() / 1000)
        return 422

    there = world(SINGLY, answer)
    there.tell("poison")
    there.tell("well")
    there.run(2 * GIVE_UP_S)
    assert len(there.endpoint.taken) == 1
    assert list(there.states.values()) == ["delivered", "dead"]
    distances = [after - before for before, after in itertools.pairwise(instants)]
    for number, distance in enumerate(distances):
        # With so many failures in a row the endpoint counts as down, and is left alone for up to a minute.
        assert 0.5 * min(2**number, HOUR_S) <= distance <= min(2**number, HOUR_S) + 60
    assert GIVE_UP_S <= instants[-1] - instants[0] <= GIVE_UP_S + HOUR_S + 60
    (delivery,) = delivery_log.list_deliveries(there.ctx, there.webhook.id, limit=9, state="dead")
    assert delivery.attempts == len(instants)


def test_an_event_that_spoils_its_batch_is_alone_within_an_hour(world: Callable[..., World]) -> None:
    there = world(BATCHES, lambda found: 400 if any(each["subject"] == "poison" for each in found) else 204)
    for number in range(40):
        there.tell("poison" if number == 13 else f"subject-{number}")
    there.run(HOUR_S)
    assert sorted(there.states.values()) == ["delivered"] * 39 + ["waiting"]
    there.check_order()


def test_a_database_that_fails_loses_nothing(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of a request may not be written: then it is sent again."""
    failing: Iterator[bool] = iter([True, False, True])
    record = deliveries.record

    def broken(*arguments: Any, **more: Any) -> None:
        if next(failing, False):
            raise OSError("disk full")
        record(*arguments, **more)

    there = world(SINGLY, lambda _: 500)
    there.tell("a")
    there.tell("b")
    monkeypatch.setattr(deliveries, "record", broken)
    turn = there._turn

    def surviving() -> float:
        try:
            return turn()
        except OSError:
            return 1

    monkeypatch.setattr(there, "_turn", surviving)
    there.run(10)
    assert "delivered" not in there.states.values()
    there.endpoint.answer = lambda _: 204
    there.run(HOUR_S)
    assert list(there.states.values()) == ["delivered", "delivered"]
    assert len({each["id"] for each in there.endpoint.taken}) == 2


def test_a_large_replay_goes_in_order_before_what_is_new(world: Callable[..., World]) -> None:
    there = world(WebhookSpec(url="http://192.0.2.80/", batch=Batch(events=1000)))
    with there.ctx.db.write() as connection:
        new = [
            events.NewEvent(id=f"e{number}", type="lease.renewed", subject=f"s{number % 50}", time_ms=0, data={})
            for number in range(12_000)
        ]
        events.append(connection, there.ctx.now_ms(), new)
    there.run(5)
    assert len(there.endpoint.taken) == 12_000
    there.endpoint.taken.clear()
    assert delivery_log.replay(there.ctx, there.webhook.id, after_position=1_000).events == 11_000
    there.tell("s1")
    there.run(5)
    again = there.endpoint.taken
    assert [each["id"] for each in again[:-1]] == [f"e{number}" for number in range(1_000, 12_000)]
    assert again[-1]["subject"] == "s1"


def test_connections_are_closed_with_their_courier(world: Callable[..., World]) -> None:
    there = world(SINGLY)
    there.tell("a")
    there.run(1)
    assert there.endpoint.open == 1
    assert there._courier is not None
    there._courier.close()
    assert there.endpoint.open == 0


def test_one_event_that_cannot_be_taken_delays_no_other_subject(world: Callable[..., World]) -> None:
    """Not even when it is all that there was for long, so that the endpoint seems to be down."""
    there = world(SINGLY, lambda found: 422 if found[0]["subject"] == "poison" else 204)
    there.tell("poison")
    there.run(HOUR_S)
    asked = there.endpoint.asked
    while there.endpoint.asked == asked:
        there.run(60)
    there.run(60)
    there.tell("well")
    there.run(0.01)
    assert len(there.endpoint.taken) == 1


def test_an_outage_makes_few_rows_and_little_work(world: Callable[..., World]) -> None:
    """However much happens meanwhile, also to subjects of which an event waits already."""
    there = world(SINGLY, lambda _: None)
    for _ in range(20):
        for subject in range(5):
            there.tell(f"subject-{subject}")
    turns = 0
    turn = there._turn

    def counted() -> float:
        nonlocal turns
        turns += 1
        return turn()

    there._turn = counted  # type: ignore[method-assign]
    there.run(HOUR_S)
    assert turns <= 400
    assert there.endpoint.asked <= 300
    there.endpoint.answer = lambda _: 204
    there.run(120)
    assert len(there.endpoint.taken) == 100
    there.check_order()


def test_a_courier_that_begins_anew_asks_at_once_whether_the_endpoint_is_up(world: Callable[..., World]) -> None:
    """What waits was due in an hour, as the one that died had it."""
    there = world(SINGLY, lambda _: None)
    for number in range(5):
        there.tell(f"subject-{number}")
    there.run(3 * HOUR_S - 60)
    there.endpoint.answer = lambda _: 204
    there._courier = None
    there.run(1)
    assert len(there.endpoint.taken) == 5
