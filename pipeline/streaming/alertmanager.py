"""Crowding alerts to Alertmanager's v2 API: sent again before they time out, resolved when cleared, quiet about history.

Alertmanager forgets an alert that nobody sends any more, so that a dead worker's alerts end by themselves. One of its alerts is
a venue and a level; that a late scan moves when it was raised changes its start, not its identity.
"""

import asyncio
import base64
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlunsplit

from pipeline.addresses import split_address
from pipeline.alert_notice import AlertNotice
from schemas.fields import format_instant

log = logging.getLogger(__name__)

#: The name of all of these alerts, which Alertmanager's routes and inhibitions go by.
ALERT_NAME: Final = "VenueCrowded"
#: Alerts in force are sent again so often, in seconds, and end so long after they were sent last, as Prometheus does it.
RESEND_SECONDS: Final = 60.0
LASTS_SECONDS: Final = 4 * RESEND_SECONDS
#: Changes are gathered for so long, in seconds.
GATHER_SECONDS: Final = 1.0
#: Pauses between tries while it does not answer: doubled from the first to the last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
#: Alerts in one request.
_CHUNK: Final = 500
_TIMEOUT_SECONDS: Final = 10.0

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Ended:
    notice: AlertNotice
    at_ms: int


class Outbox:
    """What Alertmanager is to hold: pure, told the time (ms since the epoch)."""

    def __init__(self, quiet_ms: int) -> None:
        """An alert that was raised more than `quiet_ms` before it is first heard of is history, and is not sent."""
        self._quiet_ms = quiet_ms
        self._firing: dict[Key, AlertNotice] = {}
        self._ended: dict[Key, _Ended] = {}
        # In force when this process began: sent on if Alertmanager has them.
        self._inherited: dict[Key, AlertNotice] = {}

    @property
    def firing(self) -> int:
        """Alerts that are sent until they end."""
        return len(self._firing)

    @property
    def inherited(self) -> bool:
        """Whether Alertmanager has to be asked what it holds."""
        return bool(self._inherited)

    def note(self, notices: Iterable[AlertNotice], now: int) -> bool:
        """Take what has changed; whether there is something to send."""
        news = False
        # What has ended comes first: the alert that takes its place goes on as the same one.
        for notice in sorted(notices, key=lambda notice: (notice.open, notice.raised_at)):
            key = notice.venue, notice.level
            if notice.open:
                ended = self._ended.get(key)
                if key in self._firing or ended is not None or now - notice.raised_at <= self._quiet_ms:
                    self._ended.pop(key, None)
                    self._inherited.pop(key, None)
                    self._firing[key] = notice
                    news = True
                elif notice.told or key in self._inherited:
                    self._inherited[key] = notice
                continue
            for held in (self._inherited, self._firing):
                if key in held and held[key].alert_id == notice.alert_id:
                    del held[key]
                    if held is self._firing:
                        at = notice.cleared_at if notice.cleared_at is not None and not notice.retracted else now
                        self._ended[key] = _Ended(notice, max(at, notice.raised_at))
                        news = True
        return news

    def adopt(self, held: Iterable[Key]) -> None:
        """Go on with those of the alerts in force at the start that Alertmanager has; the others are history."""
        for key in held:
            if key in self._inherited:
                self._firing.setdefault(key, self._inherited[key])
        self._inherited.clear()

    def payload(self, now: int) -> list[dict[str, Any]]:
        """The alerts as Alertmanager takes them."""
        lasts = now + int(LASTS_SECONDS * 1000)
        return [_alert(notice, lasts) for notice in self._firing.values()] + [
            _alert(ended.notice, ended.at_ms) for ended in self._ended.values()
        ]

    def sent(self, payload: list[dict[str, Any]]) -> None:
        """Forget those that ended, as far as they were in what was sent."""
        for alert in payload:
            key = alert["labels"]["venue_id"], alert["labels"]["severity"]
            if key in self._ended and alert["endsAt"] == format_instant(self._ended[key].at_ms):
                del self._ended[key]


def _alert(notice: AlertNotice, ends_at: int) -> dict[str, Any]:
    labels = {
        "alertname": ALERT_NAME,
        "venue_id": notice.venue,
        "severity": notice.level,
        "category": notice.category,
        **({"area": notice.area} if notice.area else {}),
    }
    return {
        "labels": labels,
        "annotations": {
            "summary": f"{notice.name} is crowded: {notice.peak:,} persons at most, {notice.capacity:,} allowed",
            "alert_id": notice.alert_id,
            "runbook": "docs/runbooks/VenueCrowded.md",
        },
        "startsAt": format_instant(notice.raised_at),
        "endsAt": format_instant(ends_at),
    }


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever answers there may not send our alerts, and the password, elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        """None is followed: the answer is an error then."""


_DIRECT: Final = urllib.request.build_opener(_NoRedirects)


class Alertmanager:
    """Sends an outbox's alerts to one Alertmanager; never raises, never blocks the event loop."""

    def __init__(self, url: str, quiet_ms: int, failed: Callable[[], None], answered: Callable[[], None]) -> None:
        """`url`: where it listens, with user and password where it asks for them. `failed` and `answered` hear of each call."""
        self.outbox = Outbox(quiet_ms)
        self._url, self._headers = _address(url)
        self._failed, self._answered = failed, answered
        self._news = asyncio.Event()
        self._away = False

    def note(self, notices: Iterable[AlertNotice]) -> None:
        """Take what has changed."""
        if self.outbox.note(notices, time.time_ns() // 1_000_000) or self.outbox.inherited:
            self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), RESEND_SECONDS)
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._news.clear()
            if await self._send():
                pause = FIRST_PAUSE
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_PAUSE)
                self._news.set()

    async def _send(self) -> bool:
        try:
            if self.outbox.inherited:
                self.outbox.adopt(await asyncio.to_thread(self._held))
            payload = self.outbox.payload(time.time_ns() // 1_000_000)
            for i in range(0, len(payload), _CHUNK):
                await asyncio.to_thread(self._call, "/api/v2/alerts", payload[i : i + _CHUNK])
                self.outbox.sent(payload[i : i + _CHUNK])
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            self._failed()
            if not self._away:
                log.warning("Alertmanager does not take alerts (%s): trying again", error)
            self._away = True
            return False
        if payload:
            self._answered()
        if self._away:
            log.warning("Alertmanager takes alerts again")
        self._away = False
        return True

    def _held(self) -> list[Key]:
        alerts = json.loads(self._call(f"/api/v2/alerts?active=true&filter=alertname%3D%22{ALERT_NAME}%22"))
        labels = [alert["labels"] for alert in alerts]
        return [(each.get("venue_id", ""), each.get("severity", "")) for each in labels]

    def _call(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers)
        try:
            with _DIRECT.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise OSError(f"{error.code}: {error.read(300).decode(errors='replace').strip()}") from None


def _address(url: str) -> tuple[str, dict[str, str]]:
    parts = split_address(url, "PIPELINE_ALERTMANAGER_URL")
    headers = {"Content-Type": "application/json"}
    user, at, place = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), headers
