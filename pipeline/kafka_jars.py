"""The jars of Apache Kafka, fetched once and checked against infra/kafka/jars.lock before every use."""

import errno
import fcntl
import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UserError
from pipeline.progress import progress_bar

#: What runs the broker besides its jars: the lock file, the settings and the logging of the broker.
INFRA: Final = Path(__file__).resolve().parent.parent / "infra" / "kafka"

_PARALLEL_DOWNLOADS: Final = 4


@dataclass(frozen=True, slots=True)
class _Jar:
    artifact: Any  # jgo.maven.Artifact: knows where its file is and how to fetch it
    sha256: str

    @property
    def path(self) -> Path:
        return Path(self.artifact.cached_path)

    def is_right(self) -> bool:
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def infra_file(name: str) -> Path:
    """A file of infra/kafka. Raises UserError when the package is not installed from a checkout."""
    path = INFRA / name
    if not path.is_file():
        raise UserError(
            f"{path} is missing: the local broker needs a checkout of this project; run make install in one"
        )
    return path


def kafka_jars() -> list[Path]:
    """The broker's classpath, every jar with the SHA-256 that the lock file says; fetches those that are not here.

    They are kept in jgo's cache (~/.m2/repository, or what M2_REPO names), so only the first call needs a network.
    Raises UserError when one cannot be had.
    """
    jars = _locked_jars()
    try:
        if not all(jar.is_right() for jar in jars):
            with _alone(jars[0].artifact.context.repo_cache):
                _mend(jars)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"the disk is full: Kafka's jars do not fit into {jars[0].artifact.context.repo_cache}; "
                "free 60 MB there, or name another folder as M2_REPO"
            ) from None
        raise UserError(
            f"Kafka's jars cannot be kept in {jars[0].artifact.context.repo_cache}: {error.strerror}; "
            "make that folder writable, or name another as M2_REPO"
        ) from None
    return [jar.path for jar in jars]


def _locked_jars() -> list[_Jar]:
    lock = infra_file("jars.lock").read_text()
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=GlobalSettings.load().repo_cache)
    jars = []
    for line in lock.splitlines():
        if not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(_Jar(context.project(group, artifact).at_version(version).artifact(), sha256))
    return jars


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process fetches at a time: jgo writes a jar in place, so another would see it half there."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".kafka-jars.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mend(jars: list[_Jar]) -> None:
    wrong = [jar for jar in jars if not jar.is_right()]
    logging.getLogger("jgo").setLevel(logging.ERROR)  # the SHA-256 below says more than its warnings
    pool = ThreadPoolExecutor(_PARALLEL_DOWNLOADS)
    try:
        with progress_bar("fetching Apache Kafka", len(wrong)) as advance:
            for jar in pool.map(_fetch, wrong):
                advance(1, jar.artifact.artifactId)
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(jar: _Jar) -> _Jar:
    """Replace a missing, half-fetched or altered jar."""
    try:
        jar.path.unlink(missing_ok=True)
        jar.artifact.resolve()
    except (OSError, RuntimeError) as error:
        jar.path.unlink(missing_ok=True)
        # The errors of jgo's HTTP client are OSErrors too, without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{jar.artifact.filename} of Apache Kafka cannot be fetched from Maven Central: "
            "connect to the network once, or set PIPELINE_KAFKA to the address of a running Kafka"
        ) from None
    if not jar.is_right():
        jar.path.unlink()
        raise UserError(
            f"{jar.artifact.filename} as fetched from Maven Central is not the jar that {INFRA.name}/jars.lock names; "
            "try again on another network, or set PIPELINE_KAFKA to the address of a running Kafka"
        )
    return jar
