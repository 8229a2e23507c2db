"""What is told of alerts: each change, once Kafka takes it; never a mere rise of the peak, nor what was told before."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from pipeline.alert_notice import AlertNotice
from pipeline.streaming.alert_delivery import AlertDelivery

RAISED = AlertNotice("a1", "v", "warning", 1_632_030_060_000, None, 12, 10, "V", "mall", None)


def published(*handfuls: Sequence[AlertNotice]) -> list[list[AlertNotice]]:
    """What each handful makes a delivery publish."""
    sent: list[list[AlertNotice]] = []

    async def scene() -> None:
        async def publish(notices: Sequence[AlertNotice]) -> None:
            sent.append(list(notices))

        delivery = AlertDelivery(publish, None)
        running = asyncio.create_task(delivery.run())
        for mark, notices in enumerate(handfuls, 1):
            assert delivery.ready
            delivery.deliver(notices, mark)
            while not delivery.ready:
                await asyncio.sleep(0)
            assert delivery.told == mark
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(scene())
    return sent


def test_a_raising_a_clearing_and_a_retraction_are_told_a_rising_peak_is_not() -> None:
    cleared = replace(RAISED, peak=15, cleared_at=RAISED.raised_at + 600_000)
    assert published([RAISED], [replace(RAISED, peak=15)], [cleared], [replace(cleared, retracted=True)]) == [
        [RAISED],
        [],
        [cleared],
        [replace(cleared, retracted=True)],
    ]


def test_an_alert_that_a_late_scan_opens_again_is_told_again() -> None:
    cleared = replace(RAISED, cleared_at=RAISED.raised_at + 600_000)
    assert published([RAISED], [cleared], [RAISED]) == [[RAISED], [cleared], [RAISED]]


def test_what_another_may_have_told_since_is_told_whatever_was_told_before() -> None:
    again = replace(RAISED, again=True)
    assert published([RAISED], [again], [RAISED]) == [[RAISED], [again], []]


def test_who_is_overtaken_while_kafka_is_slow_tells_what_holds_now() -> None:
    cleared = replace(RAISED, cleared_at=RAISED.raised_at + 600_000)
    sent: list[list[AlertNotice]] = []
    asked: list[tuple[list[str], int]] = []

    async def scene() -> None:
        async def publish(notices: Sequence[AlertNotice]) -> None:
            sent.append(list(notices))

        async def overtaken(notices: Sequence[AlertNotice], mark: int) -> Sequence[AlertNotice]:
            asked.append(([notice.alert_id for notice in notices], mark))
            return [cleared]

        delivery = AlertDelivery(publish, None, overtaken)
        running = asyncio.create_task(delivery.run())
        delivery.deliver([RAISED], 7)
        while not delivery.ready:
            await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(scene())
    assert [each for each in sent if each] == [[RAISED], [cleared]]
    assert asked == [(["a1"], 7), (["a1"], 7)]


def test_what_was_told_before_a_restart_is_not_told_again() -> None:
    cleared = replace(RAISED, cleared_at=RAISED.raised_at + 600_000)
    assert published([replace(RAISED, told=True)], [replace(RAISED, peak=15)], [cleared]) == [[], [], [cleared]]


def test_nothing_counts_as_told_before_kafka_has_it() -> None:
    async def scene() -> None:
        kafka_has_it = asyncio.Event()

        async def publish(_notices: Sequence[AlertNotice]) -> None:
            await kafka_has_it.wait()

        delivery = AlertDelivery(publish, None)
        running = asyncio.create_task(delivery.run())
        delivery.deliver([RAISED], 7)
        await asyncio.sleep(0.01)
        assert (delivery.ready, delivery.told) == (False, 0)
        kafka_has_it.set()
        await asyncio.sleep(0.01)
        assert (delivery.ready, delivery.told) == (True, 7)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(scene())


def test_a_message_says_of_a_retracted_alert_that_it_ended_as_it_began() -> None:
    message = json.loads(replace(RAISED, retracted=True).message().model_dump_json())
    assert message == {
        "alert_id": "a1",
        "venue_id": "v",
        "level": "warning",
        "raised_at": "2021-09-19T05:41:00.000Z",
        "cleared_at": "2021-09-19T05:41:00.000Z",
        "peak": 12,
        "capacity": 10,
    }
