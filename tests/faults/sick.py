"""A `pipeline` command that dies at a named point, or has a bug planted: `python -m tests.faults.sick worker`.

The patches live here and are loaded by nothing else; production code knows nothing of them. FAULTS_KILL=point:n ends the
process by SIGKILL the n-th time that it reaches the point; FAULTS_BUG=name plants a bug of tests/faults/bugs.py; with
FAULTS_UNKNOWING set its questions for the partitions come to nothing until it has dealt them out.
"""

import asyncio
import faulthandler
import gc
import inspect
import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

#: Point → where it is, and what is patched.
POINTS = (
    "before-insert",
    "between-inserts",
    "after-scans",
    "after-insert",
    "before-commit",
    "after-commit",
    "recovery-announced",
    "recovery-found",
    "recovery-loaded",
    "rebalance-revoked",
    "rebalance-assigned",
)


class _Fuse:
    """Burns down by one each time that it is passed; at the end the process is killed."""

    def __init__(self, length: int) -> None:
        self._left = length

    def burn(self) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def around(holder: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None) -> None:
    """Have functions called before and after a method or function, with its arguments."""
    method = getattr(holder, name)

    @wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        if before:
            before(*arguments)
        result = method(*arguments, **options)
        if after:
            after(*arguments)
        return result

    @wraps(method)
    async def call_async(*arguments: Any, **options: Any) -> Any:
        if before:
            before(*arguments)
        result = await method(*arguments, **options)
        if after:
            after(*arguments)
        return result

    setattr(holder, name, call_async if inspect.iscoroutinefunction(method) else call)


def kill_at(point: str, count: int) -> None:
    """Have this process killed the `count`-th time that it comes to a point."""
    from pipeline.store import recovery
    from pipeline.store.writer import Writer
    from pipeline.streaming.batch_transport import BatchConsumer
    from pipeline.streaming.worker import Worker

    fuse = _Fuse(count)

    def passed(*_: Any) -> None:
        fuse.burn()

    def scans_passed(_: Any, table: str, *__: Any) -> None:
        if table == "scan_set":
            fuse.burn()

    places: dict[str, tuple[Any, str, Callable[..., None] | None, Callable[..., None] | None]] = {
        "before-insert": (Writer, "write", passed, None),
        "between-inserts": (Writer, "insert", None, passed),
        "after-scans": (Writer, "insert", None, scans_passed),
        "after-insert": (Writer, "write", None, passed),
        "before-commit": (BatchConsumer, "commit_stored", passed, None),
        "after-commit": (BatchConsumer, "commit_stored", None, passed),
        "recovery-announced": (Writer, "announce", None, passed),
        "recovery-found": (recovery, "find_unfinished", None, passed),
        "recovery-loaded": (recovery, "load_shard", None, passed),
        "rebalance-revoked": (Worker, "revoked", None, passed),
        "rebalance-assigned": (Worker, "assigned", passed, None),
    }
    assert places.keys() == set(POINTS)
    around(*places[point])


def keep_unknowing() -> None:
    """Have all questions for the partitions come to nothing that the group's member asks before it has first dealt them out."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.consumer.group_coordinator import GroupCoordinator

    members: list[Any] = []
    ask = AIOKafkaClient._metadata_update

    async def asked(client: Any, *given: Any) -> Any:
        return False if client in members else await ask(client, *given)

    def joined(_: Any, client: Any, *__: Any) -> None:
        members.append(client)

    def dealt(coordinator: Any, _: Any) -> None:
        if members:
            print(f"dealt out {coordinator._metadata_snapshot}", flush=True)
        members.clear()

    AIOKafkaClient._metadata_update = asked
    around(GroupCoordinator, "__init__", joined, None)
    around(GroupCoordinator, "_perform_assignment", None, dealt)


def _say_where(*_: Any) -> None:
    """What every thread and every task of every event loop is doing, into the log."""
    faulthandler.dump_traceback()
    for loop in [each for each in gc.get_objects() if isinstance(each, asyncio.AbstractEventLoop)]:
        for task in asyncio.all_tasks(loop):
            task.print_stack()


def main() -> None:
    """Patch as the environment says, then be the command. SIGUSR1 makes it say where it is."""
    from pipeline.cli import main as run

    if kill := os.environ.get("FAULTS_KILL"):
        point, count = kill.split(":")
        kill_at(point, int(count))
    if bug := os.environ.get("FAULTS_BUG"):
        from tests.faults.bugs import plant

        plant(bug)
    if os.environ.get("FAULTS_UNKNOWING"):
        keep_unknowing()
    signal.signal(signal.SIGUSR1, _say_where)
    run()


if __name__ == "__main__":
    main()
