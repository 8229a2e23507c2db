"""The way to a Kafka cluster that somebody named: connect, or say in one sentence why not."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess

#: Seconds to reach a broker at all, and then to hear about its cluster.
_CONNECT_SECONDS: Final = 3.0
_BOOTSTRAP_SECONDS: Final = 15.0

# What goes wrong reaches the user as one sentence; without a handler Python would print the client's own log besides.
logging.getLogger("kafka").addHandler(logging.NullHandler())


def unreachable(address: str) -> UserError:
    """What to say when no Kafka answers there."""
    return UserError(f"no Kafka answers at {address}; start one with: pipeline broker start")


@contextmanager
def open_admin(kafka: KafkaAccess | str) -> Iterator[Any]:
    """A KafkaAdminClient of a cluster. Raises UserError when no broker answers there, or none lets us in.

    The same error stands for a broker that goes away during the block, and for what we may not do there.
    """
    access = KafkaAccess.of(kafka)
    servers = check_reachable(access)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=servers, bootstrap_timeout_ms=int(_BOOTSTRAP_SECONDS * 1000), **access.options()
        )
        try:
            yield admin
        finally:
            admin.close()
    except (KafkaError, OSError) as error:
        raise access.forbidden(error, "do that") or UserError(
            f"Kafka at {access.address} failed ({type(error).__name__}); see whether it runs with: pipeline broker status"
        ) from error


def check_reachable(kafka: KafkaAccess | str) -> list[str]:
    """The bootstrap servers as a list, if one of them lets us in; answers within seconds. Raises UserError.

    Without TLS and password a connection that opens is enough.
    """
    access = KafkaAccess.of(kafka)
    for server in access.servers:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
                break
        except OSError:
            continue
    else:
        raise unreachable(access.address)
    if access.protocol != "PLAINTEXT":
        access.check()
    return access.servers
