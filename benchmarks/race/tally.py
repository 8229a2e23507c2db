"""What a peer counts and says of its run."""

import json
import time
from pathlib import Path
from typing import Self


class Tally:
    """How many of the records were taken and refused, since when. The call is `PROGRAM ADDRESS TOPIC RECORDS FOLDER`."""

    def __init__(self, address: str, topic: str, records: int, folder: Path) -> None:
        """Nothing is taken yet. `folder` is the peer's own, and there."""
        self.address = address
        self.topic = topic
        self.folder = folder
        self.expected = records
        self._taken = self._refused = 0
        self._began: float | None = None

    @classmethod
    def of_call(cls, arguments: list[str]) -> Self:
        """From the arguments of the program."""
        address, topic, records, folder = arguments
        return cls(address, topic, int(records), Path(folder))

    def take(self, refused: bool) -> None:
        """Note one record; the clock starts at the first."""
        if self._began is None:
            self._began = time.monotonic()
        self._taken += 1
        self._refused += refused

    @property
    def done(self) -> bool:
        """Whether every record was taken."""
        return self._taken >= self.expected

    def report(self) -> None:
        """Print the JSON line; to be called once everything is stored and committed."""
        seconds = time.monotonic() - (self._began or time.monotonic())
        print(json.dumps({"scans": self._taken, "refused": self._refused, "seconds": seconds}), flush=True)
