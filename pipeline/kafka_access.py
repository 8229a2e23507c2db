"""The way into a Kafka cluster: its address, TLS and user; here alone they are put into the words of each client library."""

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.errors import UserError

#: As Kafka calls what a listener speaks, and the ways to prove that one knows a password without sending it.
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["SCRAM-SHA-512", "SCRAM-SHA-256"]

#: Seconds that a broker has to let us in or to refuse us.
_KNOCK_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """Where a cluster is (host:port[,host:port…]) and how a client of ours gets in. Its text holds no password."""

    address: str
    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    user: str = ""
    password: str = field(default="", repr=False)
    #: Certificates of the authorities that brokers are believed by, PEM; None: those of the system.
    authorities: Path | None = None
    #: Our own certificate chain and its private key, PEM, for brokers that ask for one.
    certificate: Path | None = None
    certificate_key: Path | None = None

    @classmethod
    def of(cls, kafka: "KafkaAccess | str") -> "KafkaAccess":
        """A bare address is a cluster without TLS and users, as the local one is."""
        return cls(kafka) if isinstance(kafka, str) else kafka

    @property
    def servers(self) -> list[str]:
        """The bootstrap servers. Raises UserError for what is not host:port."""
        servers = [server.strip() for server in self.address.split(",")]
        for server in servers:
            host, _, port = server.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise UserError(f"{server!r} is no address of a Kafka broker: give host:port in PIPELINE_KAFKA")
        return servers

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted, and brokers known by their certificates."""
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def uses_password(self) -> bool:
        """Whether a user and a password are asked for."""
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @property
    def name(self) -> str:
        """Who we are to the brokers, for messages."""
        return f"user {self.user}" if self.uses_password else "this client"

    def options(self) -> dict[str, Any]:
        """Keyword arguments of every client of aiokafka and kafka-python, which have the same names for them.

        Files are read anew each time. Raises UserError when one cannot be.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.uses_tls:
            options["ssl_context"] = self._tls()
        if self.uses_password:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options

    def faust_credentials(self) -> Any:
        """Faust's setting `broker_credentials`. Raises UserError when a file cannot be read."""
        from faust.auth import SASLCredentials, SSLCredentials

        tls = self._tls() if self.uses_tls else None
        if self.uses_password:
            return SASLCredentials(
                username=self.user, password=self.password, ssl_context=tls, mechanism=self.mechanism
            )
        return None if tls is None else SSLCredentials(tls)

    async def refusal(self, *, guess: bool) -> UserError | None:
        """Why the first broker that can be reached does not let us in; None if it does, or if none can be reached.

        The clients try refused connections again and again, and say "cannot connect" in the end: so somebody must look.
        With `guess` a connection that the other side ends is taken for one to a listener of another protocol; whoever would
        rather wait for a broker that is just starting or stopping does not guess.
        """
        if self.protocol == "PLAINTEXT" and not guess:
            return None  # there is nothing to be refused for
        from aiokafka.conn import create_conn
        from aiokafka.errors import KafkaConnectionError, KafkaError

        options = self.options()
        for server in self.servers:
            host, _, port = server.rpartition(":")
            try:
                connection = await create_conn(
                    host.strip("[]"), int(port), request_timeout_ms=int(_KNOCK_SECONDS * 1000), **options
                )
            except ssl.SSLCertVerificationError as error:
                return UserError(
                    f"the certificate of Kafka at {server} is not to be trusted ({error.verify_message}): "
                    "name its authority in kafka_ca, and the host as its certificate does"
                )
            except (ssl.SSLEOFError, KafkaConnectionError, ConnectionResetError, TimeoutError):
                if not guess:
                    continue
                return UserError(
                    f"what listens at {server} does not speak {self.protocol}: set kafka_protocol to what that listener has, "
                    "and kafka_certificate if it wants one"
                )
            except ssl.SSLError:
                return UserError(f"Kafka at {server} does not take our TLS: see kafka_protocol and kafka_certificate")
            except (KafkaError, OSError, ValueError) as error:
                refusal = self._refused(server, error)
                if refusal is None:
                    continue
                return refusal
            connection.close()
            return None
        return None

    def check(self) -> None:
        """Raises UserError if a broker refuses us. Not for an event loop: it waits."""
        with ThreadPoolExecutor(1, "kafka-access") as thread:  # the caller's thread may have a loop that runs
            refusal = thread.submit(asyncio.run, self.refusal(guess=True)).result()
        if refusal is not None:
            raise refusal

    def forbidden(self, error: BaseException, what: str) -> UserError | None:
        """What to say if `error` is that of an authoriser, which does not let us do `what`; None if it is another."""
        if not type(error).__name__.endswith("AuthorizationFailedError"):
            return None
        return UserError(
            f"Kafka at {self.address} does not let {self.name} {what}: give it the right (infra/kafka/acls.toml), "
            "or be another by kafka_user"
        )

    def _refused(self, server: str, error: Exception) -> UserError | None:
        from aiokafka.errors import (
            IllegalSaslStateError,
            SaslAuthenticationFailed,
            UnsupportedSaslMechanismError,
        )

        if isinstance(error, SaslAuthenticationFailed | ValueError):
            return UserError(
                f"Kafka at {server} refuses {self.name}: see kafka_user, kafka_password and kafka_mechanism"
            )
        if isinstance(error, UnsupportedSaslMechanismError | IllegalSaslStateError):
            return UserError(f"Kafka at {server} has no {self.mechanism}: see kafka_mechanism and kafka_protocol")
        return None

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.authorities)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable("kafka_ca", self.authorities, error) from None
        if self.certificate is not None:
            try:
                # Never ask a terminal for the key's passphrase: a worker has none.
                context.load_cert_chain(self.certificate, self.certificate_key, password=lambda: b"")
            except (OSError, ssl.SSLError) as error:
                raise _unreadable("kafka_certificate", self.certificate, error) from None
        return context


def _unreadable(setting: str, path: Path | None, error: OSError) -> UserError:
    reason = "it is no PEM of that" if isinstance(error, ssl.SSLError) else error.strerror
    return UserError(f"setting {setting}: {path} cannot be used ({reason}); give a PEM file without a passphrase")
