"""What a page and a Prometheus get from a worker that is at work: how long it takes, and how much it is."""

import json
import time
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from benchmarks.report import table

#: Scrapes, and messages that follow the first one, of each watch.
_SCRAPES: Final = 20
_DELTAS: Final = 10


@dataclass(frozen=True, slots=True)
class Watched:
    """What one page and one Prometheus get for a while: ms and bytes."""

    pings: list[float]
    scrapes: list[float]
    scraped: int
    first: float
    first_size: int
    deltas: list[int]
    pauses: list[float]
    read: float


def watch(url: str) -> Watched:
    """Scrape some times, then open the page's feed and follow it for some messages."""
    pings, scrapes, text = [], [], b""
    for _ in range(_SCRAPES):
        for path, times_taken in (("livez", pings), ("metrics", scrapes)):
            begun = time.perf_counter()
            text = get(f"{url}/{path}")
            times_taken.append(1000 * (time.perf_counter() - begun))
    begun = time.perf_counter()
    sizes: list[int] = []
    times: list[float] = []
    with urllib.request.urlopen(f"{url}/api/v1/live", timeout=30) as stream:
        while len(sizes) <= _DELTAS:
            line = stream.readline()
            if line.startswith(b"data: "):
                sizes.append(len(line))
                times.append(time.perf_counter())
    read = float(json.loads(get(f"{url}/api/v1/health"))["read_seconds"])
    pauses = [after - before for before, after in pairwise(times)]
    return Watched(pings, scrapes, len(text), 1000 * (times[0] - begun), sizes[0], sizes[1:], pauses[1:], 1000 * read)


def page_figures(pages: list[Watched]) -> str:
    """A table of several watches."""
    scrapes = sorted(each for page in pages for each in page.scrapes)
    deltas = [each / 1000 for page in pages for each in page.deltas]
    rows = [
        ["a question about nothing (/livez), ms", *_middle([each for page in pages for each in page.pings], 1)],
        ["a scrape of /metrics, in turns with it, ms", f"{median(scrapes):.1f}", f"{scrapes[0]:.1f}–{scrapes[-1]:.1f}"],
        ["… kB", f"{pages[-1].scraped / 1000:.0f}", ""],
        ["the page's first message, ms", *_middle([page.first for page in pages])],
        ["… kB", *_middle([page.first_size / 1000 for page in pages])],
        ["what follows, kB a message", *_middle(deltas)],
        ["… seconds apart", *_middle([each for page in pages for each in page.pauses], 1)],
        ["reading the present from the store, ms", *_middle([page.read for page in pages])],
    ]
    return table(["while the scans stream on", "median", "min–max"], rows)


def _middle(values: list[float], digits: int = 0) -> list[str]:
    return [f"{median(values):,.{digits}f}", f"{min(values):,.{digits}f}–{max(values):,.{digits}f}"]


def get(url: str) -> bytes:
    """The body at an address."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
        return content
