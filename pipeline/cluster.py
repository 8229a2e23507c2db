"""The way to a Kafka cluster that somebody named: connect, or say in one sentence why not."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from pipeline.errors import UserError

#: Seconds to reach a broker at all, and then to hear about its cluster.
_CONNECT_SECONDS: Final = 3.0
_BOOTSTRAP_SECONDS: Final = 15.0

# What goes wrong reaches the user as one sentence; without a handler Python would print the client's own log besides.
logging.getLogger("kafka").addHandler(logging.NullHandler())


def unreachable(address: str) -> UserError:
    """What to say when no Kafka answers there."""
    return UserError(f"no Kafka answers at {address}; start one with: pipeline broker start")


@contextmanager
def open_admin(address: str) -> Iterator[Any]:
    """A KafkaAdminClient of the cluster at host:port[,host:port…]. Raises UserError when no broker answers there.

    The same error stands for a broker that goes away during the block.
    """
    bootstrap = check_reachable(address)
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=int(_BOOTSTRAP_SECONDS * 1000))
        try:
            yield admin
        finally:
            admin.close()
    except (KafkaError, OSError) as error:
        raise UserError(
            f"Kafka at {address} failed ({type(error).__name__}); see whether it runs with: pipeline broker status"
        ) from error


def check_reachable(address: str) -> list[str]:
    """The bootstrap servers as a list, if a connection to one of them opens; answers within seconds. Raises UserError."""
    servers = [server.strip() for server in address.split(",")]
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise UserError(f"{server!r} is no address of a Kafka broker: give host:port in PIPELINE_KAFKA")
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
                return servers
        except OSError:
            continue
    raise unreachable(address)
