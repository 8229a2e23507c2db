"""`python -m pipeline.warm`: compile the core once, so that the first real run need not wait for it.

Plays a small simulated day through the engine on a store of its own, thrown away afterwards.
"""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.engine import open_engine
from pipeline.presence import fit_model
from pipeline.settings import load_settings
from pipeline.simulate.day import DayPlan
from pipeline.simulate.options import SimulationOptions
from pipeline.store.client import open_store
from pipeline.store.models import save_model, use_model

_TOPIC = "warm"


def main() -> None:
    """Compile; what is compiled already takes no time."""
    plan = DayPlan(SimulationOptions(check_ins=1_000, seed=1))
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
        at = 0
        for batch in plan.batches():
            offsets = range(at, at + len(batch.lines))
            engine.process(_TOPIC, 0, offsets, [0] * len(offsets), batch.lines)
            at = offsets.stop
            engine.settle()
        # Loading the state back compiles the rest.
        engine.revoke(_TOPIC, [0])
        engine.assign(_TOPIC, [0])
        engine.close()


if __name__ == "__main__":
    main()
