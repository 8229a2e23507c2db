"""`python -m benchmarks.scrape`: how long the venues at a glance and a scrape take with 100,000 venues."""

import time
from statistics import median

import numpy as np

from pipeline.overview import Groups, overview
from pipeline.streaming.metrics import Metrics

_VENUES, _CATEGORIES, _AREAS, _TIMES = 100_000, 12, 514, 20


def main() -> None:
    """Print the medians of some tries, in milliseconds, and the size of the answer."""
    random = np.random.default_rng(1)
    categories, areas = Groups(), Groups()
    for number in range(_VENUES):
        categories.add(f"category-{number % _CATEGORIES}")
        areas.add(f"area-{number % _AREAS}")
    capacity = random.integers(10, 5_000, _VENUES).astype(np.int32)
    occupancy = (capacity * random.random(_VENUES) ** 2 * 1.3).astype(np.int32)
    metrics = Metrics()
    counting, scraping, text = [], [], b""
    for _ in range(_TIMES):
        begun = time.perf_counter()
        metrics.overview = overview(occupancy, capacity, categories, areas, {"warning": 40, "critical": 3})
        counted = time.perf_counter()
        text = metrics.exposition()
        scraping.append(time.perf_counter() - counted)
        counting.append(counted - begun)
    print(f"{_VENUES:,} venues: {1000 * median(scraping):.1f} ms a scrape, {len(text):,} bytes")
    print(f"counted at a glance, every ten seconds beside it: {1000 * median(counting):.1f} ms")


if __name__ == "__main__":
    main()
