"""Who is let in: static tokens and an identity provider's, and everything that only looks like one."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.access.bearer import BearerTokens
from pipeline.access.door import Budget, Door
from pipeline.access.roles import AGGREGATES, PERSONS, Identity, Role
from pipeline.access.tokens import PREFIX, TokenFile
from pipeline.cli import cli
from pipeline.errors import UserError
from pipeline.person_reads import checked_purpose
from pipeline.settings import Settings

ISSUER, AUDIENCE = "https://login.example", "check-in-pipeline"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = rsa.generate_private_key(65537, 2048)


@pytest.fixture
def provider(tmp_path: Path) -> BearerTokens:
    keys = [
        {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())), "kid": "r", "alg": "RS256"},
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())), "kid": "e", "alg": "ES256"},
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    return BearerTokens(Settings(oidc_issuer=ISSUER, oidc_keys=str(tmp_path / "keys.json")))


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str = "r", without: str = "", **claims: Any) -> str:
    now = int(time.time())
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "roles": ["tracer"], **claims}
    content.pop(without, None)
    return jwt.encode(content, key, algorithm, headers={"kid": kid})


#: Signed when they are used: a session of tests may last longer than a token.
@pytest.mark.parametrize("token", [signed, lambda: signed(EC, "ES256", "e"), lambda: signed(exp=int(time.time()) - 10)])
def test_a_providers_token_is_taken_with_its_roles(provider: BearerTokens, token: Callable[[], str]) -> None:
    assert provider.identify(token()) == Identity("oidc:ann", frozenset({Role.TRACER}))


def forged_by_public_key() -> str:
    # HS256 with the public key as the secret, spelt by hand: the library itself refuses to make one.
    import base64
    import hmac
    from hashlib import sha256

    def text(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    secret = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": int(time.time()) + 300, "roles": ["tracer"]}
    head = text(b'{"alg":"HS256","typ":"JWT","kid":"r"}') + b"." + text(json.dumps(content).encode())
    return (head + b"." + text(hmac.digest(secret, head, sha256))).decode()


def unsigned() -> str:
    return jwt.encode(
        {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": int(time.time()) + 300},
        None,
        "none",
        headers={"kid": "r"},
    )


@pytest.mark.parametrize(
    "token",
    [
        unsigned,
        forged_by_public_key,
        lambda: signed(OTHER),
        lambda: signed(kid="unknown"),
        lambda: signed(kid="e"),
        lambda: signed(EC, "ES256", "r"),
        lambda: signed(algorithm="RS512"),
        lambda: signed(iss="https://evil.example"),
        lambda: signed(aud="another"),
        lambda: signed(exp=int(time.time()) - 60),
        lambda: signed(nbf=int(time.time()) + 300),
        *(partial(signed, without=name) for name in ("exp", "iss", "aud", "sub")),
        lambda: "",
        lambda: "a.b.c",
        lambda: signed()[:-4],
    ],
    ids=["none", "HS for RS", "another key", "unknown key", "key of EC", "key of RSA", "another algorithm", "issuer", "audience",
         "expired", "not yet", "no exp", "no iss", "no aud", "no sub", "empty", "nonsense", "cut"],
)  # fmt: skip
def test_what_only_looks_like_a_token_is_nobodys(provider: BearerTokens, token: Callable[[], str]) -> None:
    assert provider.identify(token()) is None


def test_roles_that_are_none_of_ours_give_nothing(provider: BearerTokens) -> None:
    nobody = provider.identify(signed(roles="root superuser"))
    assert nobody is not None
    assert not Door.lets(nobody)
    both = provider.identify(signed(roles="viewer tracer root"))
    assert both is not None
    assert both.roles == {Role.VIEWER, Role.TRACER}


def test_a_static_token_holds_until_it_is_revoked_or_expires_and_only_its_hash_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokens.json"
    file = TokenFile(path)
    token = file.create("ann", (Role.VIEWER,), 30)
    now = datetime.now(UTC)
    assert token.startswith(PREFIX)
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert file.identify(token, now) == Identity("token:ann", frozenset({Role.VIEWER}))
    assert file.identify(token + "x", now) is None
    assert file.identify(token, now + timedelta(31)) is None
    with pytest.raises(UserError, match="already"):
        file.create("ann", (Role.TRACER,), 30)
    file.revoke("ann")
    assert file.identify(token, now) is None
    path.chmod(0o644)
    with pytest.raises(UserError, match="can be read by others"):
        TokenFile(path).tokens()
    path.chmod(0o600)
    if os.getuid() == 0:
        os.chown(path, 12_345, -1)
    else:
        monkeypatch.setattr("pipeline.access.tokens.os.getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(UserError, match="belongs to another user"):
        TokenFile(path).tokens()


def test_a_change_of_access_is_noted_before_it_is_made_or_not_made_at_all(tmp_path: Path) -> None:
    def run(*words: str) -> Result:
        places = {"PIPELINE_HOME": str(tmp_path), "PIPELINE_GATEWAY_DEVICES": str(tmp_path / "devices")}
        return CliRunner().invoke(cli, words, env=places)

    made = [run("tokens", "create", "ann", "--role", "tracer", "--role", "viewer", "--days", "7")]
    made.append(run("gateway", "add-device", "gate-7"))
    assert run("tokens", "create", "ann", "--role", "admin").exit_code == 1
    assert run("tokens", "revoke", "bo").exit_code == 1
    assert run("gateway", "add-device", "gate-7").exit_code == 1
    made.append(run("tokens", "revoke", "ann"))
    assert [each.exit_code for each in made] == [0, 0, 0]
    log = tmp_path / "audit.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["action"], each["what"], each["purpose"], each["persons"]) for each in entries] == [
        ("tokens create", "ann, tracer viewer, 7 days", "access", 0),
        ("gateway add-device", "gate-7", "access", 0),
        ("tokens revoke", "ann", "access", 0),
    ]
    assert all(each["who"].startswith("cli:") for each in entries)
    for each in made[:2]:
        assert each.output.strip() not in log.read_text()

    log.write_text("not an entry\n")
    before = {path: path.read_bytes() for path in (tmp_path / "tokens.json", tmp_path / "devices")}
    for words in (("tokens", "create", "bo", "--role", "admin"), ("gateway", "add-device", "gate-8")):
        refused = run(*words)
        assert "nothing about access is changed" in str(refused.exception)
        assert refused.output == ""
    assert before == {path: path.read_bytes() for path in before}


def test_without_tokens_loopback_sees_aggregates_and_nobody_sees_persons(tmp_path: Path) -> None:
    loopback = Door(Settings(home=tmp_path)).identify(None)
    assert Door.lets(loopback)
    assert not Door.lets(loopback, PERSONS)
    assert Door(Settings(home=tmp_path, http_host="0.0.0.0")).identify(None) is None
    door = Door(Settings(home=tmp_path))
    token = TokenFile(tmp_path / "tokens.json").create("ann", (Role.TRACER,), 1)
    assert door.identify(None) is None
    assert Door.lets(door.identify(f"Bearer {token}"), PERSONS)
    for wrong in (
        token,
        f"Basic {token}",
        "Bearer ",
        f"Bearer {PREFIX}x",
        f"Bearer {'x' * 9000}",
        f"Bearer {signed()}",
    ):
        assert door.identify(wrong) is None


def test_revoking_the_last_token_lets_nobody_in_and_commands_still_want_a_purpose(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    file, door = TokenFile(settings.tokens_path), Door(settings)
    token = file.create("ann", (Role.TRACER,), 1)
    assert (
        "the last" in CliRunner().invoke(cli, ["tokens", "revoke", "ann"], env={"PIPELINE_HOME": str(tmp_path)}).output
    )
    for each in (door, Door(settings)):
        assert each.identify(None) is None
        assert each.identify(f"Bearer {token}") is None
        assert not each.is_open
    with pytest.raises(UserError, match="say with --purpose"):
        checked_purpose(settings, None)
    settings.tokens_path.unlink()
    assert door.is_open


def test_only_tracers_read_about_persons() -> None:
    assert {role for role in Role if Identity("x", frozenset({role})).may(PERSONS)} == {Role.TRACER}
    assert {role for role in Role if Identity("x", frozenset({role})).may(AGGREGATES)} == set(Role)


def test_a_budget_is_each_callers_own() -> None:
    budget = Budget(3)
    assert [budget.take("ann") for _ in range(4)] == [True, True, True, False]
    assert budget.take("ben")
