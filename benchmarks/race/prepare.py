"""Each peer's own environment, made when it is first needed, or the sentence why it cannot be."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.race.contestants import JAVA_PROJECT, Peer

_INSTALL_SECONDS = 900


def prepare(peer: Peer) -> tuple[str, str]:
    """Make the peer ready: (its version, ""), or ("", the sentence why it is left out)."""
    if peer.layout == "alone":
        return _version(peer), ""
    if not peer.layout:
        return _prepare_java()
    stamp = peer.python.parents[1] / ".installed"
    digest = hashlib.sha256(peer.lock.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        click.echo(f"installing {peer.title}", err=True)
        folder = peer.python.parents[1]
        shutil.rmtree(folder, ignore_errors=True)
        pip = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, "-r", str(peer.lock)]):
            said = _run(command)
            if said is not None:
                return "", f"its packages cannot be installed here: {said}"
        stamp.write_text(digest)
    return _version(peer), ""


def _prepare_java() -> tuple[str, str]:
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing:
        return "", f"there is no {' and no '.join(missing)} here"
    # Maven itself sees whether anything has changed.
    said = _run([shutil.which("mvn") or "mvn", "-q", "-B", "package"], JAVA_PROJECT)
    if said is not None:
        return "", f"Maven cannot build it: {said}"
    jar = next((JAVA_PROJECT / "target" / "lib").glob("kafka-streams-*.jar"))
    said_by_java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    return f"{jar.stem.removeprefix('kafka-streams-')}, Java {said_by_java.split(chr(34))[1]}", ""


def _run(command: Sequence[str], folder: Path | None = None) -> str | None:
    """None, or when it failed the first line that it called an error, else the last it said."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines[-1:] or [f"status {done.returncode}"])[0]


def _version(peer: Peer) -> str:
    ask = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return subprocess.run([str(peer.python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
