"""`python -m pipeline.warm`: compile the core once, so that the first real run need not wait for it.

Plays a small simulated day through the engine on a store of its own, thrown away afterwards.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.core.tracing.contact import contact_windows
from pipeline.core.tracing.exposure import Stays, exposures
from pipeline.core.tracing.window import Window, midnights
from pipeline.core.values import split_lines
from pipeline.engine import Engine, open_engine
from pipeline.policies import load_policies
from pipeline.presence import fit_model
from pipeline.settings import load_settings
from pipeline.simulate.day import DayPlan
from pipeline.simulate.options import SimulationOptions
from pipeline.store.client import open_store
from pipeline.store.models import save_model, use_model
from pipeline.streaming.unpack import compile_unpacking

_TOPIC = "warm"


def main() -> None:
    """Compile; what is compiled already takes no time."""
    plan = DayPlan(SimulationOptions(check_ins=4_000, seed=1))
    with TemporaryDirectory() as folder:
        settings = load_settings(store=Path(folder))
        with closing(open_store(settings)) as client:
            model = fit_model(client)
            save_model(client, model)
            use_model(client, model.version)
        engine = open_engine(settings, clock="events")
        engine.assign(_TOPIC, [0])
        venues = [venue.model_dump_json(exclude_none=True).encode() for venue in plan.venues()]
        engine.load_venues(venues, [None] * len(venues))
        lines = [line for batch in plan.batches() for line in batch.lines]
        quarter, rest = len(lines) // 4, len(lines) // 20
        read = _reader(engine)
        read(lines[:quarter])
        read(lines[3 * quarter : -rest])
        _load_back(engine)
        # Later than memory reaches: corrected from the store.
        read(lines[quarter : 3 * quarter])
        # Half written, as a crash leaves it: computed again.
        read(lines[-rest:], ends=False)
        _load_back(engine)
        engine._shard.collect(engine._shard.horizon)
        engine.close()
    compile_unpacking()
    _trace()


def _reader(engine: Engine) -> Callable[..., None]:
    at = 0

    def read(lines: Sequence[bytes], *, ends: bool = True) -> None:
        nonlocal at
        values, _ = split_lines([b"\n".join([*lines, b""])])
        offsets = np.arange(at, at + len(values))
        engine.process(_TOPIC, 0, offsets, 0 * offsets, values)
        at += len(values)
        write = engine.take(idle=True)
        if write is not None and ends:
            engine.write(write)
        elif write is not None:
            for table, rows in write.derived:
                engine._writer.insert(table, rows)
        if ends:
            engine.settle()

    return read


def _load_back(engine: Engine) -> None:
    engine.revoke(_TOPIC, [0])
    engine.assign(_TOPIC, [0])


def _trace() -> None:
    """Two visitors who meet twice: sums over a day and pairs with several stays are compiled too."""
    two = np.arange(2, dtype=np.int32)
    nothing = np.zeros(2, np.uint8)
    start = np.array([0, 1_000])
    mine = Stays(0 * two, 0 * two, nothing, start, start + 500, nothing, nothing + 1)
    theirs = Stays(0 * two + 1, 0 * two, nothing, start, start + 500, nothing, nothing + 1)
    day = Window(0, 86_400_000, "onset", date(1970, 1, 1))
    policy = next(iter(load_policies(None)))
    exposures(mine, theirs, day, policy, ["shop"], midnights(UTC))
    contact_windows(mine, np.zeros(1, np.int64), 60_000, 1)


if __name__ == "__main__":
    main()
