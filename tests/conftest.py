"""What several tests need: a real Kafka, started once per test session, on ports and in a folder of its own."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

# No example fails for being slow on a busy machine: speed is for benchmarks.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Kafka's clients are imported by the fixtures: most tests need none of them.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="the long form of the tests of faults (`make faults`)")
    parser.addoption("--screenshots", action="store_true", help="write docs/images anew (tests/browser)")


def pytest_configure(config: pytest.Config) -> None:
    """kafka-python reads its own files in an old way, and Python says so 200 times."""
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")


class _ByFile(LoadFileScheduling):
    """A file's tests go to one process; so do all in the browser, whose site takes a minute to make."""

    def _split_scope(self, nodeid: str) -> str:
        browser = "tests/browser/"
        return browser if nodeid.startswith(browser) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """What `--dist loadfile` is to us; how others are dealt out stays as xdist has it."""
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that only this test session uses; it ends with the session, however that ends."""
    from pipeline.broker import start_broker

    home: Path = tmp_path_factory.mktemp("kafka")
    with start_broker(home, 0, tied_to_us=True) as broker:
        yield broker.address
    shutil.rmtree(home)


@pytest.fixture
def new_topic(kafka: str) -> Callable[..., str]:
    """Makes an empty topic with a name of its own: `new_topic(partitions=4)` returns the name."""
    from pipeline.topic_admin import ensure_topics
    from pipeline.topics import Topic

    def create(partitions: int = 1) -> str:
        topic = Topic(f"test-{secrets.token_hex(6)}", partitions)
        ensure_topics(kafka, [topic])
        return topic.name

    return create


@pytest.fixture
def kafka_topics(kafka: str) -> Callable[..., str]:
    """Makes the pipeline's topics anew and empty: `kafka_topics(partitions=4)` returns the broker's address."""
    from pipeline.cluster import open_admin
    from pipeline.topic_admin import ensure_topics
    from pipeline.topics import declared_topics

    def create(partitions: int = 4) -> str:
        topics = declared_topics(partitions, retention=None)
        with open_admin(kafka) as admin:
            stale = {topic.name for topic in topics} & set(admin.list_topics())
            if stale:
                admin.delete_topics(sorted(stale))
            deadline = time.monotonic() + 20
            while stale & set(admin.list_topics()):
                assert time.monotonic() < deadline, f"{stale} are still there"
                time.sleep(0.05)
        assert all(state.created for state in ensure_topics(kafka, topics))
        return kafka

    return create
