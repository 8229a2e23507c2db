"""Who takes part, how each is started, and what each claims."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.report import ROOT

#: Environments of the peers; git does not see them.
ENVIRONMENTS: Final = ROOT / ".race"
JAVA_PROJECT: Final = Path(__file__).parent / "kafka_streams"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to do the job.

    `module` is its program, for one in Python with the packages of `requirements-<name>.lock`; `package` is the one whose version
    is shown. `state` and `crash` say, in a few words, where its state lives and what a crash does. `slow`: it runs over the short
    day. `layout` is that of its tables ("" for topics). `options` are given to its program last.
    """

    name: str
    title: str
    module: str
    package: str
    writes_to: str
    state: str
    crash: str
    slow: bool = False
    layout: str = "peer"
    options: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """The interpreter of its own environment; ours where it needs no other packages."""
        return Path(sys.executable) if self.layout == "alone" else ENVIRONMENTS / self.name / "bin" / "python"

    @property
    def lock(self) -> Path:
        """Its packages, with hashes."""
        return Path(__file__).with_name(f"requirements-{self.name}.lock")

    def command(self, address: str, topic: str, records: int, folder: Path, file: Path) -> Sequence[str]:
        """The program and its arguments; `folder` is its own, `topic` and `file` hold the day."""
        if self.layout == "alone":
            return [str(self.python), "-m", self.module, str(file), str(records), str(folder)]
        if self.layout:
            return [str(self.python), "-m", self.module, address, topic, str(records), str(folder)]
        jars = f"{JAVA_PROJECT / 'target' / 'race.jar'}:{JAVA_PROJECT / 'target' / 'lib' / '*'}"
        # The throughput collector, and a heap in which it does not have to work often.
        options = ["-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", jars]
        call = [address, topic, str(records), str(folder), *result_topics(folder), *self.options]
        return [shutil.which("java") or "java", *options, self.module, *call]


def result_topics(folder: Path) -> tuple[str, str]:
    """The topics of visits and minutes of the peer that has this folder."""
    return f"{folder.name}-visits", f"{folder.name}-minutes"


PEERS: Final = (
    Peer(
        "kafka-streams",
        "Kafka Streams, RocksDB",
        "race.Race",
        "kafka-streams",
        writes_to="topics",
        state="RocksDB and changelog topics",
        crash="minutes miscounted, some rows lost",
        layout="",
        options=("rocksdb",),
    ),
    Peer(
        "kafka-streams-memory",
        "Kafka Streams, state in memory",
        "race.Race",
        "kafka-streams",
        writes_to="topics",
        state="memory and changelog topics",
        crash="minutes miscounted, some rows lost",
        layout="",
        options=("memory",),
    ),
    Peer(
        "pathway",
        "Pathway",
        "benchmarks.race.peers.pathway_tables",
        "pathway",
        writes_to="ClickHouse",
        state="memory",
        crash="from the beginning; persistence is an option",
    ),
    Peer(
        "bytewax",
        "Bytewax",
        "benchmarks.race.peers.bytewax_flow",
        "bytewax",
        writes_to="ClickHouse",
        state="memory",
        crash="from the beginning; recovery is an option",
    ),
    Peer(
        "quix",
        "Quix Streams",
        "benchmarks.race.peers.quix_streams",
        "quixstreams",
        writes_to="ClickHouse",
        state="RocksDB and changelog topics",
        crash="on from the last checkpoint",
    ),
    Peer(
        "faust",
        "Faust as documented",
        "benchmarks.race.peers.faust_agents",
        "faust-streaming",
        writes_to="ClickHouse",
        state="memory and changelog topics",
        crash="minutes miscounted, some rows lost",
        slow=True,
    ),
    Peer(
        "clickhouse",
        "ClickHouse alone: SQL over the file",
        "benchmarks.race.clickhouse_alone",
        "chdb",
        writes_to="ClickHouse",
        state="none: all is computed at once",
        crash="from the beginning",
        layout="alone",
    ),
)
