"""A whole small pipeline to look at: a broker, a worker with two simulated Sundays and a model, and more scans to send."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.broker import free_port
from pipeline.processes import tied
from pipeline.produce import ScanProducer
from pipeline.settings import Settings
from pipeline.simulate import facts
from pipeline.simulate.day import DayPlan
from pipeline.simulate.options import SimulationOptions
from pipeline.topic_admin import ensure_topics
from pipeline.topics import CHECK_INS, VENUES, declared_topics
from tests.integration.checkins import read_topic
from tests.waiting import wait_until

SUNDAY = facts.BUSY_SUNDAY
#: Where the second Sunday stops: 15:00 in Surabaya.
NOW = datetime(SUNDAY.year, SUNDAY.month, SUNDAY.day, 8, tzinfo=UTC)
STALE_SECONDS = 5
#: The name of one venue: a spreadsheet would run it.
FORMULA = "=1+1"


def _occurred_at(line: bytes) -> float:
    # A phone whose clock is ahead would put "now" where it says; a line that is no scan may come.
    try:
        return datetime.fromisoformat(json.loads(line)["occurred_at"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return 0.0


class Site:
    """What the browser looks at. `address` stays the same when the worker is killed and started again."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self._kafka = kafka
        self._folder = folder
        self._port = free_port()
        self._worker: subprocess.Popen[bytes] | None = None
        self._sent = 0
        self._token: str | None = None
        self._at = NOW
        self.address = f"http://127.0.0.1:{self._port}"

    def prepare(self) -> None:
        """Two Sundays, the second until NOW, stored and with a model in force."""
        ensure_topics(self._kafka, declared_topics(2, retention=None))
        second = DayPlan(self._options(SUNDAY, seed=7))
        plans = [DayPlan(self._options(SUNDAY - timedelta(7), seed=8), second.registry), second]
        venues = list(second.venues())
        largest = max(range(len(venues)), key=lambda at: venues[at].capacity or 0)
        venues[largest] = venues[largest].model_copy(update={"name": FORMULA})
        with ScanProducer(self._kafka, VENUES) as producer:
            for venue in venues:
                producer.send(venue.venue_id.encode(), venue.model_dump_json(exclude_none=True).encode())
        until = int(NOW.timestamp() * 1000)
        with ScanProducer(self._kafka, CHECK_INS) as producer:
            for plan in plans:
                for batch in plan.batches():
                    for key, line, arrival in zip(batch.keys, batch.lines, batch.arrival_ms.tolist(), strict=True):
                        if arrival < until and _occurred_at(line) < NOW.timestamp():
                            producer.send(key, line)
        self._run("worker", "--drain")
        self._run("model", "fit", "--use")
        self.start()

    def _options(self, day: date, seed: int) -> SimulationOptions:
        return SimulationOptions(8_000, seed=seed, date=day, venues=150, city=facts.ONE_CITY)

    def start(self) -> None:
        """Start the worker and wait until it shows the store."""
        with (self._folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                tied(self._command("worker")), env=self._environment(), stdout=log, stderr=log
            )
        wait_until(self._answers)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait()

    def break_connections(self) -> None:
        """End the process that holds them; the worker goes on, and starts another."""
        assert self._worker is not None
        children = psutil.Process(self._worker.pid).children(recursive=True)
        (door,) = [each for each in children if "pipeline.api.front" in each.cmdline()]
        door.kill()

    @contextmanager
    def guarded(self) -> Iterator[str]:
        """Within the block only who holds a token is told anything; gives one of a viewer."""
        settings = Settings(home=self._folder)
        self._token = TokenFile(settings.tokens_path).create("reader", (Role.VIEWER,), 1)
        self._restart()
        try:
            yield self._token
        finally:
            self._token = None
            settings.tokens_path.unlink()
            self._restart()

    def revoke(self) -> None:
        """Make the token that `guarded` gave worthless."""
        TokenFile(Settings(home=self._folder).tokens_path).revoke("reader")

    def _restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.terminate()
            try:
                self._worker.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def ask(self, path: str) -> Any:
        """The JSON at a path."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, headers=headers), timeout=30) as answer:
            return json.load(answer)

    def feed(self) -> dict[str, Any]:
        """All that a page is told when it opens."""
        with urllib.request.urlopen(f"{self.address}/api/v1/live", timeout=30) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    told: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                    return told
        raise AssertionError("the feed ended without a word")

    def check_in(self, venue: str, persons: int) -> list[str]:
        """So many persons come to a venue, later than all before. Returns their pseudonyms."""
        visitors = [f"visitor-{self._sent + number}" for number in range(persons)]
        self._scan("check_in", venue, visitors)
        return visitors

    def check_out(self, venue: str, visitors: Sequence[str]) -> None:
        """They leave it again."""
        self._scan("check_out", venue, visitors)

    def pass_time(self, minutes: int, venue: str) -> None:
        """So long later, of event time, somebody comes to a venue: the clock moves with scans only."""
        self._at += timedelta(minutes=minutes)
        self.check_in(venue, 1)

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """All that a topic holds by now."""
        return [json.loads(message.value() or b"null") for message in read_topic(self._kafka, topic)]

    def _scan(self, event_type: str, venue: str, visitors: Sequence[str]) -> None:
        with ScanProducer(self._kafka, CHECK_INS) as producer:
            for visitor in visitors:
                self._sent += 1
                at = self._at + timedelta(milliseconds=self._sent)
                scan = {
                    "event_id": f"now-{self._sent}",
                    "event_type": event_type,
                    "venue_id": venue,
                    "visitor_id": visitor,
                    "occurred_at": at.isoformat(timespec="milliseconds"),
                }
                producer.send(venue.encode(), json.dumps(scan).encode())

    def _answers(self) -> bool:
        assert self._worker is not None
        assert self._worker.poll() is None, (self._folder / "worker.log").read_text()[-3000:]
        with suppress(OSError):
            return self.ask("/readyz")["ok"] and self.ask("/api/v1/venues?limit=1")["total"] == 150
        return False

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            self._command(*arguments), env=self._environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _command(self, *arguments: str) -> Sequence[str]:
        return [sys.executable, "-m", "pipeline", *arguments]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PIPELINE_HOME": str(self._folder),
            "PIPELINE_KAFKA": self._kafka,
            "PIPELINE_CLOCK": "events",
            "PIPELINE_HTTP_PORT": str(self._port),
            "PIPELINE_STALE_AFTER": f"PT{STALE_SECONDS}S",
        }
