"""Log lines of a worker: one line each, on stderr, without the chatter of the libraries."""

import logging
import time

#: A library's line is shown again after this long, in seconds: while Kafka is away aiokafka says so ten times a second.
REPEAT_SECONDS = 30.0
#: A group may be without a coordinator for this long, in seconds, before that is worth a line.
NEW_BROKER_SECONDS = 10.0


class _OneLine(logging.Formatter):
    """Our own tracebacks are kept, because they mean a bug; a library's become the exception's one line."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name.startswith("pipeline"):
            return super().format(record)
        error = record.exc_info[1] if record.exc_info else None
        short = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        text = " ".join(super().format(short).split())
        return f"{text} ({error!r})" if error is not None and repr(error) not in text else text


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


def set_up_logging() -> None:
    """Send the log to stderr: our own from INFO up, the libraries' from WARNING up.

    aiokafka's from ERROR up: its warnings are about rebalances, which are ordinary, and which we report ourselves.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_NotAgain())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
