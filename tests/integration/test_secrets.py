"""A secret planted in every place that holds one is in no output, log, metric or file of ours, whatever goes wrong."""

import base64
import os
import secrets
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from pydantic import SecretStr

from pipeline.broker import start_broker
from pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

#: Settings that may hold a secret, and how: each gets one of its own.
PLANTED = {
    "clickhouse_url": "http://reader:{}@127.0.0.1:9/checkins?token={}",
    "alertmanager_url": "http://user:{}@127.0.0.1:9",
    "vault_url": "https://user:{}@127.0.0.1:9",
    "vault_token": "{}",
    "master_key": "{},{}",
    "kafka": "user:{}@127.0.0.1:9",
    "kafka_protocol": "SASL_SSL",
    "kafka_user": "worker",
    "kafka_password": "{}",
    "oidc_issuer": "https://user:{}@127.0.0.1:9/realm",
    "oidc_keys": "https://user:{}@127.0.0.1:9/keys",
}
#: The same with a password that ends some part of a URL.
BROKEN = {name: text.replace(":{}@", ":{}/x#y@") for name, text in PLANTED.items() if ":{}@" in text}

COMMANDS = (
    "config",
    "config --format json",
    "query SELECT\t1",
    "verify",
    "serve",
    "worker --drain",
    "gateway",
    "topics",
    "keys list",
    "keys create",
    "keys rotate",
    "keys destroy --over",
    "venues load venues.csv",
    "produce scans.ndjson",
    "audit verify",
    "tokens list",
    "retention check",
    "export venues",
    "release budget",
    "erase p-1 --purpose legal-request",
)

#: Runs commands one after another in one interpreter, as the command line does: tracebacks and logs too.
_DRIVER = """
import sys, traceback
from pipeline import cli
for words in sys.argv[1:]:
    print("$ pipeline", words, flush=True)
    sys.argv = ["pipeline", *words.replace(" ", "\\0").replace("\\t", " ").split("\\0")]
    try:
        cli.main()
    except SystemExit as end:
        print("status", end.code, flush=True)
    except BaseException:
        traceback.print_exc()
        print("crashed", flush=True)
"""


def run(folder: Path, settings: dict[str, str], *commands: str) -> str:
    """Everything that the commands wrote to standard output and standard error."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    environment = inherited | {f"PIPELINE_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, *commands],
        cwd=folder,
        env={**environment, "PIPELINE_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def planted(texts: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings with secrets, and the secret of each."""
    found = {name: f"planted{secrets.token_hex(12)}" for name in texts}
    return {name: text.replace("{}", found[name]) for name, text in texts.items()}, found


def leaked(text: str, found: dict[str, str]) -> list[str]:
    """Whose secrets are in a text, as they are, in base64 or in a URL; a half of one counts."""
    names = []
    for name, secret in found.items():
        forms = [secret[: len(secret) // 2], secret[len(secret) // 2 :], quote(secret)]
        forms += [base64.b64encode(b"x" * shift + secret.encode())[4:-4].decode() for shift in range(3)]
        if any(form in text for form in forms):
            names.append(name)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "venues.csv").write_text("venue_id,name,category\nv-1,Name,mall\n")
    (tmp_path / "scans.ndjson").write_text("{}\n")
    return tmp_path


def test_every_setting_that_is_a_secret_has_one_planted() -> None:
    fields = Settings.model_fields
    held = {name for name in fields if "SecretStr" in str(fields[name].annotation)}
    assert held <= set(PLANTED)
    # An address may be given a password by mistake.
    assert {name for name in fields if name.endswith("_url")} <= held
    assert isinstance(Settings(vault_token="x").vault_token, SecretStr)  # type: ignore[arg-type]


def test_a_planted_secret_is_found_in_any_form() -> None:
    found = {"it": "planted0123456789abcdef"}
    for text in (
        "a planted0123456789abcdef b",
        "Port is planted0123",
        base64.b64encode(b"u:planted0123456789abcdef").decode(),
    ):
        assert leaked(text, found) == ["it"]
    assert leaked("planted elsewhere", found) == []


@pytest.mark.parametrize("texts", [PLANTED, BROKEN], ids=["as meant", "broken addresses"])
def test_no_command_tells_a_secret_of_the_settings(folder: Path, texts: dict[str, str]) -> None:
    settings, found = planted(texts)
    said = run(folder, settings, *COMMANDS)
    assert leaked(said, found) == [], said
    assert said.count("$ pipeline") == len(COMMANDS)
    assert "crashed" not in said, said
    # From a file instead of the environment, and where another line of it is wrong.
    lines = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
    (folder / "pipeline.toml").write_text(lines)
    said = run(folder, {}, "config", "config --descriptions", "topics")
    assert leaked(said, found) == [], said
    (folder / "pipeline.toml").write_text(lines + "partitions = 0\nunknown = 1\n")
    said = run(folder, {}, "config")
    (folder / "pipeline.toml").write_text(lines + "broken = \n")
    said += run(folder, {}, "config")
    assert leaked(said, found) == [], said
    assert said.count("status 1") == 2, said
    (folder / "pipeline.toml").unlink()
    left = "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
    assert leaked(left, found) == []


#: Serves a store on a free port, asks it with good and bad tokens, prints what came back and every line that was logged.
_SERVED = """
import logging, os, sys, urllib.error, urllib.request
from pathlib import Path
import prometheus_client
from pipeline.access.roles import Role
from pipeline.access.tokens import TokenFile
from pipeline.api.server import serve_http
from pipeline.settings import Settings
from pipeline.store.client import open_store
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
home = Path(os.environ["PIPELINE_HOME"])
settings = Settings(home=home, store=home / "store", http_port=0)
open_store(settings).close()
token = TokenFile(settings.tokens_path).create("district", (Role("viewer"),), 1)
Path(sys.argv[1]).write_text(token)
with serve_http(settings, prometheus_client.generate_latest, {}) as port:
    for given in (token, sys.argv[2], token[:-1] + "x"):
        for path in ("/api/v1/venues", "/api/v1/cases", "/api/v1/" + sys.argv[2], "/api/v1/venues?cursor=" + given, "/metrics"):
            headers = {"Authorization": "Bearer " + given, "X-Purpose": given, "Cookie": given}
            try:
                request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", None, headers)
                answer = urllib.request.urlopen(request, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            # A page may name the path that it does not know: whoever sent it has it.
            if sys.argv[2] not in path:
                print(path.split("?")[0], answer.status, answer.headers, answer.read().decode())
"""


@pytest.mark.kafka
def test_no_password_stands_on_a_command_line_while_a_secured_broker_is_made(tmp_path: Path) -> None:
    """Command lines can be read by every user of the machine, as long as a process runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    seen.add("\0".join(child.cmdline()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with start_broker(tmp_path, 0, tied_to_us=True, secured=True) as broker:
            assert broker.secured is not None
            passwords = {path.stem: path.read_text() for path in broker.secured.glob("*.password")}
            said = broker.log.read_text()
    finally:
        ended.set()
        watching.join()
    assert {"admin", "broker", "worker"} <= set(passwords)
    for program in ("kafka.tools.StorageTool", "kafka.Kafka"):
        assert any(program in each for each in seen), "it was not watched"
    assert leaked("\n".join(seen) + said, passwords) == []
    # Nor is what told the tool left lying about.
    left = {path.name for path in (tmp_path / "kafka" / "secured").iterdir()}
    assert left == {"ca.pem", "broker.pem", *(f"{user}.password" for user in passwords)}


def test_no_file_metric_or_log_holds_a_token_or_a_key(folder: Path) -> None:
    home, kept = folder / "home", folder / "kept"
    made = run(
        folder,
        {"gateway_devices": str(folder / "devices")},
        "keys create",
        "tokens create district-1 --role tracer",
        "gateway add-device gate-1",
        "venues signing-key",
    )
    words = made.split()
    tokens = [word for word in words if len(word) >= 40 and word.replace("-", "").replace("_", "").isalnum()]
    assert len(tokens) >= 2, made
    master = (home / "keys" / "master.key").read_text().split()[-1]
    (signing,) = [path for path in (home / "venue-keys").iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    pem = "".join(signing.read_text().split("-----")[2].split())
    wrong = f"planted{secrets.token_hex(24)}"
    (folder / "tls.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{wrong}\n-----END PRIVATE KEY-----\n")
    served = subprocess.run(
        [sys.executable, "-c", _SERVED, str(kept), wrong],
        env={**os.environ, "PIPELINE_HOME": str(folder / "other"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert served.returncode == 0, served.stderr
    found = {f"token {number}": token for number, token in enumerate(tokens)}
    found |= {"master key": master, "signing key": pem, "served token": kept.read_text(), "wrong": wrong}
    tls = {"gateway_certificate": str(folder / "tls.pem"), "gateway_certificate_key": str(folder / "tls.pem")}
    said = run(
        folder,
        {**tls, "gateway_devices": str(folder / "devices"), "kafka": "127.0.0.1:9"},
        *("keys list", "keys rotate", "tokens list", "tokens revoke district-1", "gateway", "config"),
        *("venues code v-1", "venues qr --venues venues.csv --out posters", "audit show"),
    )
    said += served.stdout + served.stderr
    assert leaked(said, found) == [], said
    held = {signing, home / "keys" / "master.key", kept, folder / "tls.pem"}
    for path in (each for each in folder.rglob("*") if each.is_file() and each not in held):
        assert leaked(path.read_text(errors="replace"), found) == [], path
