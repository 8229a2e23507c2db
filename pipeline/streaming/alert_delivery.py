"""Stored crowding alerts to the topic `crowding-alerts`, at least once, and to Alertmanager.

The store is the queue: the worker hands on what has changed there, and notes there what Kafka has. While Kafka or Alertmanager
is away nothing else waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from pipeline.alert_notice import AlertNotice
from pipeline.streaming.alertmanager import Alertmanager


class AlertDelivery:
    """Tells the outside of alerts, one handful at a time."""

    def __init__(
        self,
        publish: Callable[[Sequence[AlertNotice]], Awaitable[None]],
        alertmanager: Alertmanager | None,
        overtaken: Callable[[Sequence[AlertNotice], int], Awaitable[Sequence[AlertNotice]]] | None = None,
    ) -> None:
        """`publish` sends to the topic, trying until Kafka has all of it.

        `overtaken`, where several workers write: of notices just told and their mark, what holds now of those that another worker
        has changed meanwhile, and may have told before.
        """
        self._publish = publish
        self._overtaken = overtaken
        self._alertmanager = alertmanager
        self._next: tuple[Sequence[AlertNotice], int] | None = None
        self._handed = asyncio.Event()
        # Of alerts in force, what was published last but for the peak, which rises too often to tell each time.
        self._published: dict[str, AlertNotice] = {}
        #: The mark of the last handful that Kafka has; 0 for none.
        self.told = 0

    @property
    def ready(self) -> bool:
        """Whether the last handful is told, so that the next one may come."""
        return self._next is None

    def deliver(self, notices: Sequence[AlertNotice], mark: int) -> None:
        """Take a handful; `told` becomes `mark` once Kafka has it."""
        self._next = notices, mark
        self._handed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._handed.wait()
            self._handed.clear()
            assert self._next is not None
            notices, mark = self._next
            news = await self._tell(notices)
            while self._overtaken is not None and news:
                said = {notice.alert_id: notice for notice in news}
                now = await self._overtaken(news, mark)
                news = await self._tell(
                    [
                        notice
                        for notice in now
                        if notice != replace(said[notice.alert_id], peak=notice.peak, again=False)
                    ]
                )
            self.told, self._next = mark, None

    async def _tell(self, notices: Sequence[AlertNotice]) -> Sequence[AlertNotice]:
        """Tell what is news of it, and return that."""
        if self._alertmanager is not None:
            self._alertmanager.note(notices)
        news = [notice for notice in notices if self._is_news(notice)]
        await self._publish(news)
        return news

    def _is_news(self, notice: AlertNotice) -> bool:
        before = self._published.pop(notice.alert_id, None)
        if notice.open:
            self._published[notice.alert_id] = notice
        same = before is not None and (before.open, before.capacity) == (notice.open, notice.capacity)
        return notice.again or not (notice.told or same)
