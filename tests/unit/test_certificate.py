"""The pages and the API over TLS: renewed without a restart, and refused at the start where the certificate is none."""

import http.client
import json
import logging
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509

from pipeline.api.server import serve_http
from pipeline.certificate import Certificate
from pipeline.errors import UserError
from pipeline.kafka_identity import authority_file, make_identity
from pipeline.settings import Settings, load_settings
from tests.waiting import wait_until


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A folder with an authority and a certificate of 127.0.0.1; `broker.pem` holds chain and key."""
    make_identity(tmp_path / "identity", [])
    return tmp_path / "identity"


def settings_of(identity: Path) -> Settings:
    pem = identity / "broker.pem"
    return Settings(home=identity.parent / "home", http_port=0, http_certificate=pem, http_certificate_key=pem)


def ask(port: int, identity: Path, path: str = "/livez") -> tuple[int, bytes]:
    trusted = ssl.create_default_context(cafile=str(authority_file(identity)))
    try:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}{path}", timeout=30, context=trusted) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_with_a_certificate_everything_is_answered_over_tls_and_nothing_in_clear(identity: Path) -> None:
    with serve_http(settings_of(identity), bytes, {}) as port:
        assert json.loads(ask(port, identity)[1]) == {"ok": True}
        status, page = ask(port, identity, "/")
        assert status == 200
        assert b"<html" in page
        assert ask(port, identity, "/api/v1/venues/mall-1/now")[0] == 503  # no store is there
        plain = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        plain.request("GET", "/livez")
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            plain.getresponse()


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not(
    identity: Path, tmp_path: Path
) -> None:
    certificate = Certificate(identity / "broker.pem", identity / "broker.pem")
    make_identity(tmp_path / "next", [])
    (identity / "broker.pem").write_text("half of a")
    with pytest.raises(UserError, match=r"broker\.pem .* cannot be used"):
        certificate.renew()
    certificate.renew()  # said once
    (identity / "broker.pem").unlink()
    with pytest.raises(UserError, match="No such file"):
        certificate.renew()
    certificate.renew()
    assert shown(certificate) == authority_of(identity / "ca.pem")
    (tmp_path / "next" / "broker.pem").replace(identity / "broker.pem")
    certificate.renew()
    assert shown(certificate) == authority_of(tmp_path / "next" / "ca.pem")


def test_the_process_at_the_door_looks_for_a_renewed_certificate(identity: Path, tmp_path: Path) -> None:
    make_identity(tmp_path / "next", [])
    with serve_http(settings_of(identity), bytes, {}) as port:
        assert ask(port, identity)[0] == 200
        (tmp_path / "next" / "broker.pem").replace(identity / "broker.pem")

        def renewed() -> bool:
            try:
                return ask(port, tmp_path / "next")[0] == 200
            except urllib.error.URLError:
                return False

        wait_until(renewed)


@pytest.mark.parametrize(
    ("chain", "key", "why"),
    [
        ("absent", "broker.pem", r"absent with the key \S+ cannot be used: No such file"),
        ("broker.pem", "ca.pem", "must be PEM"),
        ("garbage", "broker.pem", "must be PEM"),
        ("broker.pem", "locked", "without a password"),
    ],
)
def test_a_certificate_of_no_use_is_refused_at_the_start(identity: Path, chain: str, key: str, why: str) -> None:
    (identity / "garbage").write_bytes(os.urandom(200))
    (identity / "locked").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcGCSqGSIb3\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    settings = Settings(
        home=identity.parent, http_port=0, http_certificate=identity / chain, http_certificate_key=identity / key
    )
    with pytest.raises(UserError, match=why), serve_http(settings, bytes, {}):
        pass


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(UserError, match="http_certificate and http_certificate_key need each other"):
        load_settings(http_certificate="chain.pem")


def test_who_answers_others_in_clear_is_told_so(identity: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        serve_http(Settings(home=identity.parent, http_port=0, http_host="0.0.0.0"), bytes, {}),
    ):
        pass
    assert "tokens and answers travel in clear to 0.0.0.0: set PIPELINE_HTTP_CERTIFICATE" in caplog.text


def shown(certificate: Certificate) -> bytes:
    """The issuer's key identifier of the certificate that a client is shown."""
    server, client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    there = certificate.context.wrap_bio(client, server, server_side=True)
    here = trusting.wrap_bio(server, client)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = here.getpeercert(binary_form=True)
    assert found is not None
    return issuer_of(x509.load_der_x509_certificate(found))


def authority_of(authority: Path) -> bytes:
    """The key identifier of an authority."""
    key = x509.load_pem_x509_certificate(authority.read_bytes()).public_key()
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def issuer_of(certificate: x509.Certificate) -> bytes:
    """The key identifier of who signed a certificate."""
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert found is not None
    return found
