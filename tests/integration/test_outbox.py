"""What is told of exposures and warnings where several workers write."""

from pathlib import Path

from tests.isolated import run_isolated


def messages(folder: str) -> tuple[int, int, int]:
    """In an interpreter of its own: how many messages there are about a warning, then about it and about its end after that."""
    from contextlib import closing

    from pipeline.settings import Settings
    from pipeline.store.client import open_store
    from pipeline.store.tracing import Warn
    from pipeline.tracing.tracer import open_tracer

    settings = Settings(store=Path(folder))
    with closing(open_store(settings)):
        store = open_tracer(settings)._store
        warning = Warn("v", "who", 1_632_009_600_000, 1_632_013_200_000, 1)
        store.write_warnings([(warning, 10, False)])
        alone = len(store.messages("venue-warnings", "v", 9, 10))
        store.write_warnings([(warning, 20, True)])
        overtaken = len(store.messages("venue-warnings", "v", 9, 10))
        return alone, overtaken, len(store.messages("venue-warnings", "v", 10, 20))


def test_a_warning_that_another_worker_has_taken_back_is_not_told_any_more(tmp_path: Path) -> None:
    assert run_isolated(messages, str(tmp_path)) == (1, 0, 1)
