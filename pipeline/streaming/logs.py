"""Log lines of what runs for long: one line each, on stderr, whatever is in them, without the chatter of the libraries."""

import logging
import time
from typing import TextIO

from pipeline.one_line import one_line

#: A library's line is shown again after this long, in seconds: while Kafka is away aiokafka says so ten times a second.
REPEAT_SECONDS = 30.0
#: A group may be without a coordinator for this long, in seconds, before that is worth a line.
NEW_BROKER_SECONDS = 10.0


class _OneLine(logging.Formatter):
    """Our own tracebacks are kept, because they mean a bug; a library's become the exception's one line.

    A message may hold what somebody sent, so its control characters are spelt out; and each line of a traceback is marked, as an
    exception's text could pass for a line of the log.
    """

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        short = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        if record.name.startswith("pipeline"):
            lines = self.formatException(record.exc_info).split("\n") if record.exc_info and error is not None else []
            return "\n".join([one_line(super().format(short)), *(f"  | {one_line(line)}" for line in lines)])
        text = one_line(" ".join(super().format(short).split()))
        return f"{text} ({one_line(repr(error))})" if error is not None and one_line(repr(error)) not in text else text


class _NotAgain(logging.Filter):
    """Holds back a library's line that differs only in its arguments from one shown a moment ago.

    Also, for a while, that a group has no coordinator yet: on a new broker the first worker has to wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[tuple[str, str], float] = {}
        self._no_coordinator_since: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("pipeline"):
            return True
        key = (record.name, str(record.msg))
        now = time.monotonic()
        if "GroupCoordinatorNotAvailable" in record.getMessage():
            self._no_coordinator_since = self._no_coordinator_since or now
            if now - self._no_coordinator_since < NEW_BROKER_SECONDS:
                return False
        if now - self._shown.get(key, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._shown[key] = now
        return True


def log_handler() -> "logging.StreamHandler[TextIO]":
    """Writes the log as it should be, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_NotAgain())
    return handler


def set_up_logging() -> None:
    """Send the log to stderr: our own from INFO up, the libraries' from WARNING up.

    aiokafka's from ERROR up: its warnings are about rebalances, which are ordinary, and which we report ourselves.
    """
    logging.basicConfig(handlers=[log_handler()], level=logging.WARNING, force=True)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
