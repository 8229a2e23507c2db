"""What is loaded before partitions are taken over is what a takeover calls: nothing of it is left to be loaded then."""

from tests.isolated import run_isolated


def loaded_later() -> list[str]:
    """In an interpreter of its own: the kernels that the first visit of a shard loads after `load_compiled`."""
    from numba.core.dispatcher import Dispatcher

    from pipeline.core import loading
    from pipeline.core.decode import decode_scans
    from pipeline.core.shard import Shard, VenueRules

    loading.load_compiled()
    compile_, later = Dispatcher.compile, list[str]()

    def noted(self: Dispatcher, signature: object) -> object:
        later.append(self.py_func.__qualname__)
        return compile_(self, signature)

    Dispatcher.compile = noted
    columns, _ = decode_scans(loading._SCANS)
    shard = Shard(lambda _: VenueRules(3_600_000))
    shard.apply(columns)
    shard.advance(int(columns.occurred_at.max()))
    shard.take_changes()
    return later


def test_the_first_visit_finds_its_kernels_loaded() -> None:
    assert run_isolated(loaded_later) == []
