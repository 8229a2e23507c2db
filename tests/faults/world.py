"""A whole pipeline on this machine that can be hurt: Kafka behind a proxy, a shared store behind a front, workers."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka.errors import KafkaError

from pipeline import broker as brokers
from pipeline.broker import HOST, RunningBroker, free_port, start_broker
from pipeline.processes import tied
from tests.clickhouse_rights import write_rights
from tests.faults.proxy import Proxy
from tests.faults.verifier import committed
from tests.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A process of ours, and what it has said."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                tied([sys.executable, *arguments]),
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and nothing of it is left."""
        self._process.kill()
        self._process.wait()

    def stop(self, patience: float = 90) -> int:
        """SIGTERM; returns the exit status. One that does not stop says where it hangs: AssertionError."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGUSR1)
            time.sleep(2)
            self.kill()
            raise AssertionError(f"a worker did not stop within {patience:.0f} s: {self.log[-40_000:]}") from None

    def metrics(self) -> dict[str, float]:
        """Its metrics as they are now, by name and labels; nothing where it does not answer."""
        port = re.search(r"probes at http://[^:]+:(\d+)", self.log)
        if port is None:
            return {}
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port[1]}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


class World:
    """See the module. Everything is on loopback and in one folder, and ends with `close`."""

    def __init__(
        self, folder: Path, partitions: int, settings: dict[str, str], *, shared: bool = True, user: str | None = None
    ) -> None:
        """`shared`: the store is behind the front from the beginning; else it is the one worker's own until `share_store`.

        `user` is the one of infra/clickhouse/users.sql whose rights hold there; without any, whoever asks may do everything.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.partitions = partitions
        self.group = f"faults-{random.getrandbits(40):x}"
        self._numbers = 0
        self._client: Any = None
        self._broker_port, self._inner_port, proxy_port, self._store_port = (free_port() for _ in range(4))
        self._template = self._two_listeners(proxy_port)
        self.broker = self._start_broker()
        self.proxy = Proxy(proxy_port, self._inner_port)
        #: Kafka, for those who are not to suffer.
        self.kafka = f"{HOST}:{self._broker_port}"
        self.store_url = f"http://{HOST}:{self._store_port}/default"
        #: Of every process that is started.
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")},
            "PYTHONPATH": str(_ROOT),
            "PIPELINE_HOME": str(folder / "home"),
            "PIPELINE_KAFKA": f"{HOST}:{proxy_port}",
            "PIPELINE_PARTITIONS": str(partitions),
            "PIPELINE_GROUP": self.group,
            "PIPELINE_HTTP_PORT": "0",
            **settings,
        }
        self.front: Process | None = None
        self._rights: list[str] = []
        self._store = folder / "home" / "store" / "clickhouse"
        if shared:
            self._store = folder / "store"
            self.share_store(user)
        self.run("topics")

    # --- Kafka

    def _two_listeners(self, proxy_port: int) -> Path:
        # Beside the plain listener one that is advertised at the proxy's port, so that its clients never find the way around.
        template = brokers.infra_file("server.properties").read_text()
        listener = r"(PLAINTEXT://127\.0\.0\.1:\$port)"
        inner, advertised = f"PROXIED://{HOST}:{self._inner_port}", f"PROXIED://{HOST}:{proxy_port}"
        template = re.sub(f"^listeners={listener}", rf"listeners=\1,{inner}", template, flags=re.MULTILINE)
        template = re.sub(
            f"^advertised.listeners={listener}", rf"advertised.listeners=\1,{advertised}", template, flags=re.MULTILINE
        )
        path = self.folder / "server.properties"
        kinds = ",".join(f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "PROXIED", "CONTROLLER"))
        path.write_text(f"{template}\nlistener.security.protocol.map={kinds}\n")
        return path

    def _start_broker(self) -> RunningBroker:
        infra_file = brokers.infra_file
        with mock.patch.object(
            brokers, "infra_file", lambda name: self._template if name == "server.properties" else infra_file(name)
        ):
            return start_broker(self.folder / "home", self._broker_port, tied_to_us=True)

    def ends(self) -> dict[int, int]:
        """Per partition of check-ins, the offset after the last record."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "ends"})
        found: dict[int, int] = {}

        def ask() -> bool:
            # A broker that was just started leads its partitions a little later.
            with suppress(KafkaException):
                for each in range(self.partitions):
                    found[each] = consumer.get_watermark_offsets(TopicPartition("check-ins", each), 20)[1]
                return True
            return False

        try:
            wait_until(ask)
        finally:
            consumer.close()
        return found

    def restart_broker(self) -> None:
        """SIGKILL the broker, and start it again on its data."""
        self.broker.process.kill()
        self.broker.process.wait()
        self.broker = self._start_broker()

    # --- the store

    def share_store(self, user: str | None = None) -> None:
        """Put the store behind the front, under the rights of `user`; whoever starts from now on uses it."""
        self.environment["PIPELINE_CLICKHOUSE_URL"] = self.store_url
        self._rights = [] if user is None else [str(write_rights(self.folder, user))]
        if self.front:
            self.front.kill()
        self.front = self._start_front()

    def _start_front(self) -> Process:
        front = Process(
            ["-m", "tests.faults.front", str(self._store), str(self._store_port), *self._rights],
            self.environment,
            self.folder / "front.log",
        )
        wait_until(self._store_answers)
        return front

    def _store_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._store_port}/ping", timeout=2):
                return True
        except OSError:
            return False

    def restart_front(self) -> None:
        """SIGKILL the store, and start it again."""
        assert self.front
        self.front.kill()
        self.front = self._start_front()

    def store_mode(self, name: str, share: float, seconds: float) -> None:
        """Have the store behave like this for so long (front.MODES)."""
        body = json.dumps({"name": name, "share": share, "lasts": seconds}).encode()
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{self._store_port}/-/mode", body, timeout=5):
            pass

    def client(self) -> Any:
        """A connection to the store, in good weather."""
        return clickhouse_connect.get_client(dsn=self.store_url, send_receive_timeout=20)

    def accounting(self) -> dict[int, int]:
        """Per partition of check-ins, the offset up to which it is stored; nothing where the store does not answer.

        Of a store that is a worker's own: the offset that is committed.
        """
        if self.front is None:
            # A broker that was just started does not know of the group yet.
            with suppress(KafkaError):
                return committed(self.kafka, self.group)
            return {}
        sql = "SELECT partition, next_offset FROM checkins.accounting WHERE topic = 'check-ins'"
        try:
            self._client = self._client or self.client()
            return dict(self._client.query(sql).result_rows)
        except (ClickHouseError, OSError):
            return {}

    # --- commands

    def run(
        self, *arguments: object, status: int = 0, seconds: float = 900, module: str = "pipeline", **settings: str
    ) -> str:
        """Run a command to its end, hold it to its exit status, and return what it said."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**self.environment, **settings},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == status, f"{arguments} ended with {done.returncode}\n{said}"
        return said

    def start_worker(self, **patches: str) -> Process:
        """Start a worker; `patches` are the variables of tests/faults/sick.py and settings."""
        self._numbers += 1
        environment = {**self.environment, **patches}
        return Process(["-m", "tests.faults.sick", "worker"], environment, self.folder / f"worker-{self._numbers}.log")

    def forget_local_state(self) -> None:
        """Remove all that a worker keeps on its disk, its own store if it has one; Kafka's data beside it is the broker's."""
        for path in (self.folder / "home").iterdir():
            if path.name != "kafka":
                shutil.rmtree(path)

    def logs(self) -> str:
        """What all workers have said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log")))

    def close(self) -> None:
        """End everything."""
        self.proxy.close()
        if self.front:
            self.front.kill()
        self.broker.process.kill()
        self.broker.process.wait()
