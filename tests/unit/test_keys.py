"""Keys: derived by the book, wrapped, rotated without a gap, destroyed for good, and never shown."""

import hmac
import json
import os
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from secrets import token_bytes
from shutil import rmtree
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from pipeline.commands.keys import command
from pipeline.errors import UserError
from pipeline.privacy.derive import derive
from pipeline.privacy.master import LocalMaster, MasterKey
from pipeline.privacy.pseudonyms import Linker, NoKeyError, Pseudonymiser
from pipeline.privacy.ring import OVERLAP, KeyRing
from pipeline.privacy.secret_files import write_secret_file
from pipeline.privacy.vault import VaultMaster
from schemas.fields import parse_instant

MINUTE = 60_000
DAY = 86_400_000
EDGE = parse_instant("2021-09-12T20:00:00Z")
NOW = EDGE + 3 * DAY
RETENTION = timedelta(days=14)
SOMEBODY = "+6281234567890"


def new_ring(folder: Path, master: MasterKey | None = None) -> tuple[KeyRing, MasterKey]:
    folder.mkdir(mode=0o700, exist_ok=True)
    key = master or LocalMaster.create_file(folder / "master.key")
    return KeyRing.create(folder, key, NOW, RETENTION, timedelta(days=14), EDGE), key


def from_file(folder: Path) -> MasterKey:
    return LocalMaster.from_file(folder / "master.key")


def pseudonymiser(folder: Path) -> Pseudonymiser:
    return Pseudonymiser(folder, lambda: from_file(folder))


def tracer_of(folder: Path) -> Path:
    """What the tracer gets of a ring whose master key is in a file, in a folder of its own."""
    tracer = folder / "tracer"
    tracer.mkdir(mode=0o700)
    write_secret_file(tracer / "ring.json", (folder / "ring.json").read_text())
    write_secret_file(tracer / "master.key", LocalMaster.from_file(folder / "master.key").linking_text())
    return tracer


def by_hand(secret: bytes, purpose: bytes, context: bytes) -> bytes:
    """SP 800-108r1, section 4.1: one block of PRF(secret, counter ‖ label ‖ 0x00 ‖ context ‖ length in bits)."""
    fixed = purpose + b"\0" + context + (256).to_bytes(4, "big")
    return hmac.new(secret, (1).to_bytes(4, "big") + fixed, sha256).digest()


@pytest.mark.parametrize(("purpose", "context"), [("visitor pseudonym", "202109122000"), ("wrap", ""), ("x", "é")])
def test_keys_are_derived_as_sp_800_108_has_it(purpose: str, context: str) -> None:
    secret = bytes(range(32))
    assert derive(secret, purpose, context) == by_hand(secret, purpose.encode(), context.encode())


def test_keys_of_other_purposes_contexts_and_secrets_differ() -> None:
    keys = {
        derive(secret, purpose, context) for secret in (b"a" * 32, b"b" * 32) for purpose in "pq" for context in "xy"
    }
    assert len(keys) == 8


def test_the_cipher_passes_the_test_vector_of_fips_197() -> None:
    # FIPS 197, appendix C.3.
    encryptor = Cipher(AES256(bytes(range(32))), ECB()).encryptor()
    assert (
        encryptor.update(bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == "8ea2b7ca516745bfeafc49904b496089"
    )


def test_a_pseudonym_is_an_hmac_enciphered_under_its_periods_key(tmp_path: Path) -> None:
    ring, master = new_ring(tmp_path)
    made = pseudonymiser(tmp_path).visitor_id("phone", SOMEBODY, NOW)
    assert made == f"p202109122000.{made[14:]}"
    assert len(made) == 36

    identity = by_hand(ring.identity_secret(master), b"visitor identity", ring.ring.encode())
    expected = hmac.new(identity, b"phone\0" + SOMEBODY.encode(), sha256).digest()[:16]
    period = next(each for each in ring.periods if each.id == "202109122000")
    key = by_hand(ring.period_secret(master, period), b"visitor pseudonym", b"202109122000")
    decryptor = Cipher(AES256(key), ECB()).decryptor()
    assert decryptor.update(urlsafe_b64decode(made[14:] + "==")) == expected


def test_kinds_are_kept_apart(tmp_path: Path) -> None:
    new_ring(tmp_path)
    made = pseudonymiser(tmp_path)
    assert made.visitor_id("device", "3171012304900001", NOW) != made.visitor_id("national_id", "3171012304900001", NOW)


def test_periods_follow_one_another_without_a_gap_and_cover_what_may_come(tmp_path: Path) -> None:
    ring, _ = new_ring(tmp_path)
    periods = ring.periods
    assert all(before.ends_at == after.starts_at for before, after in pairwise(periods))
    assert EDGE in [each.starts_at for each in periods]
    assert periods[0].starts_at <= NOW - (RETENTION + OVERLAP) // timedelta(milliseconds=1)
    assert pseudonymiser(tmp_path).covered_until(NOW) >= NOW + 28 * DAY


def test_keys_are_drawn_ahead_once(tmp_path: Path) -> None:
    ring, master = new_ring(tmp_path)
    assert ring.extend(master, NOW) == []
    made = pseudonymiser(tmp_path)
    old = made.visitor_id("phone", SOMEBODY, NOW)
    assert [each.id for each in ring.extend(master, NOW + 14 * DAY)] == ["202110242000"]
    made.refresh()
    assert made.visitor_id("phone", SOMEBODY, NOW) == old
    assert made.covered_until(NOW + 14 * DAY) >= NOW + 42 * DAY


def test_the_tracer_links_over_an_edge_with_a_key_that_can_do_nothing_else(tmp_path: Path) -> None:
    new_ring(tmp_path)
    made = pseudonymiser(tmp_path)
    before, after = (made.visitor_id("phone", SOMEBODY, at) for at in (EDGE - 1, EDGE))

    tracer = tracer_of(tmp_path)
    linker = Linker(tracer, lambda: from_file(tracer))
    assert linker.link(before, EDGE - 1, EDGE + 1) == [before, after]
    assert linker.link(after, EDGE - 1, EDGE + 1) == [before, after]
    assert linker.link(after, EDGE, EDGE + 1) == [after]
    with pytest.raises(UserError, match="for linking alone"):
        pseudonymiser(tracer)


@pytest.mark.parametrize("text", ["", "visitor-7", "p202109122000.", "p199909122000.AbCdEfGhIjKlMnOpQrStUg", "'; DROP"])
def test_what_is_no_pseudonym_is_not_linked(tmp_path: Path, text: str) -> None:
    new_ring(tmp_path)
    with pytest.raises(UserError):
        Linker(tmp_path, lambda: from_file(tmp_path)).link(text, EDGE, EDGE + 1)


def test_a_destroyed_key_leaves_nothing_to_make_or_link_its_pseudonyms_with(tmp_path: Path) -> None:
    ring, master = new_ring(tmp_path)
    made, linker = pseudonymiser(tmp_path), Linker(tmp_path, lambda: from_file(tmp_path))
    before, after = (made.visitor_id("phone", SOMEBODY, at) for at in (EDGE - 1, EDGE))
    copy_of_ring = (tmp_path / "ring.json").read_bytes()

    receipt = ring.destroy(master, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
    made.refresh()
    linker.refresh()
    with pytest.raises(NoKeyError, match="destroyed"):
        made.visitor_id("phone", SOMEBODY, EDGE - 1)
    with pytest.raises(UserError, match="cannot be linked"):
        linker.link(before, EDGE - DAY, EDGE + DAY)
    assert linker.link(after, EDGE - DAY, EDGE + DAY) == [after]
    assert made.visitor_id("phone", SOMEBODY, EDGE) == after

    # Not even with a copy of the ring from before: the master key that it was wrapped with is gone too.
    (tmp_path / "ring.json").write_bytes(copy_of_ring)
    with pytest.raises(UserError, match="did not wrap"):
        pseudonymiser(tmp_path)
    assert (receipt.period, receipt.fingerprint) == ("202108292000", ring.periods[0].fingerprint)
    assert "202108292000" not in receipt.keys_left
    assert json.loads((tmp_path / "receipts" / "202108292000.json").read_text()) == receipt.model_dump()


def test_an_old_linking_key_links_a_destroyed_period_in_an_old_copy_of_the_ring_and_the_receipt_says_what_must_go(
    tmp_path: Path,
) -> None:
    ring, master = new_ring(tmp_path)
    before, after = (pseudonymiser(tmp_path).visitor_id("phone", SOMEBODY, at) for at in (EDGE - 1, EDGE))
    tracer = tracer_of(tmp_path)

    receipt = ring.destroy(master, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
    assert Linker(tracer, lambda: from_file(tracer)).link(before, EDGE - 1, EDGE + 1) == [before, after]
    for part in ("the ring, the tracer's too", "old master key", "every linking key made from it are deleted"):
        assert part in receipt.how

    # The old key opens nothing of the new ring, and both anew have nothing of the period.
    write_secret_file(tracer / "ring.json", (tmp_path / "ring.json").read_text())
    with pytest.raises(UserError, match="did not wrap"):
        Linker(tracer, lambda: from_file(tracer))
    rmtree(tracer)
    anew = tracer_of(tmp_path)
    linker = Linker(anew, lambda: from_file(anew))
    assert linker.link(after, EDGE - 1, EDGE + 1) == [after]
    with pytest.raises(UserError, match="cannot be linked"):
        linker.link(before, EDGE - 1, EDGE + 1)


def test_a_receipt_of_a_key_in_the_environment_says_what_must_go(tmp_path: Path) -> None:
    ring, master = new_ring(tmp_path, LocalMaster.from_text(urlsafe_b64encode(bytes(32)).decode()))
    how = ring.destroy(master, "202108292000", NOW + 60 * DAY, RETENTION, early=False).how
    assert "copy of the ring, the tracer's too" in how
    assert "linking keys" in how


def test_a_key_is_not_destroyed_while_its_scans_may_come_or_be_stored(tmp_path: Path) -> None:
    ring, master = new_ring(tmp_path)
    last = EDGE + 16 * DAY - 1
    with pytest.raises(UserError, match="may still come"):
        ring.destroy(master, "202108292000", last, RETENTION, early=False)
    with pytest.raises(UserError, match="current"):
        ring.destroy(master, "202109122000", NOW, RETENTION, early=True)
    with pytest.raises(UserError, match="no period"):
        ring.destroy(master, "202109122001", NOW, RETENTION, early=True)
    ring.destroy(master, "202108292000", last + 1, RETENTION, early=False)
    with pytest.raises(UserError, match=r"already; see .*/receipts/202108292000\.json"):
        ring.destroy(master, "202108292000", last + 1, RETENTION, early=True)


class _BrokenError(Exception):
    pass


@pytest.mark.parametrize("step", range(4))
def test_a_destruction_broken_off_anywhere_loses_no_other_key_and_can_be_finished(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, master = new_ring(tmp_path)
    before = pseudonymiser(tmp_path).visitor_id("phone", SOMEBODY, NOW)
    copy_of_ring = (tmp_path / "ring.json").read_bytes()
    written, later = 0, NOW + 60 * DAY

    def write(path: Path, text: str) -> None:
        nonlocal written
        if written == step:
            raise _BrokenError
        written += 1
        path.write_text(text)

    for module in ("ring", "master"):
        monkeypatch.setattr(f"pipeline.privacy.{module}.write_secret_file", write)
    with pytest.raises(_BrokenError):
        ring.destroy(master, "202108292000", later, RETENTION, early=False)
    monkeypatch.undo()
    assert pseudonymiser(tmp_path).visitor_id("phone", SOMEBODY, NOW) == before
    assert not (tmp_path / "receipts" / "202108292000.json").exists()

    again = KeyRing.open(tmp_path)
    assert "202108292000" in again.to_destroy(later, RETENTION)
    again.destroy(from_file(tmp_path), "202108292000", later, RETENTION, early=False)
    assert "202108292000" not in again.to_destroy(later, RETENTION)
    assert pseudonymiser(tmp_path).visitor_id("phone", SOMEBODY, NOW) == before
    assert (tmp_path / "receipts" / "202108292000.json").exists()
    # No line of the old master key is left, so that copies of the ring from before are closed.
    assert len((tmp_path / "master.key").read_text().split()) == 1
    (tmp_path / "ring.json").write_bytes(copy_of_ring)
    with pytest.raises(UserError, match="did not wrap"):
        pseudonymiser(tmp_path)


def test_a_receipt_from_before_a_copy_was_put_back_does_not_pass_for_that_of_a_new_destruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, master = new_ring(tmp_path)
    copies = {name: (tmp_path / name).read_bytes() for name in ("ring.json", "master.key")}
    ring.destroy(master, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
    for name, copy in copies.items():
        (tmp_path / name).write_bytes(copy)

    def broken(_: LocalMaster) -> None:
        raise _BrokenError

    monkeypatch.setattr(LocalMaster, "finish_renewal", broken)
    with pytest.raises(_BrokenError):
        ring.destroy(from_file(tmp_path), "202108292000", NOW + 60 * DAY, RETENTION, early=False)
    assert "202108292000" in KeyRing.open(tmp_path).to_destroy(NOW + 60 * DAY, RETENTION)


def test_a_period_cut_short_gives_way_to_a_new_one(tmp_path: Path) -> None:
    ring, master = new_ring(tmp_path)
    made = pseudonymiser(tmp_path)
    at = NOW + 20 * MINUTE
    before, until_then = made.visitor_id("phone", SOMEBODY, at), made.visitor_id("phone", SOMEBODY, at - 1)
    new = ring.cut(master, at, NOW)
    made.refresh()
    assert made.visitor_id("phone", SOMEBODY, at - 1) == until_then
    assert made.visitor_id("phone", SOMEBODY, at) != before
    assert made.visitor_id("phone", SOMEBODY, at).startswith(f"p{new.id}.")
    assert made.covered_until(NOW) == ring.periods[-1].ends_at
    for wrong in (NOW + MINUTE, at, at + MINUTE + 1, NOW + 400 * DAY):
        with pytest.raises(UserError):
            ring.cut(master, wrong, NOW)


def test_keys_from_the_environment_are_renewed_by_naming_the_new_before_the_old(tmp_path: Path) -> None:
    new, old = (os.urandom(32).hex() for _ in range(2))
    with pytest.raises(UserError, match="no master key"):
        LocalMaster.from_text("c2hvcnQ=")
    text = {name: urlsafe_b64encode(bytes.fromhex(each)).decode() for name, each in (("n", new), ("o", old))}
    new_ring(tmp_path, LocalMaster.from_text(text["o"]))
    before = Pseudonymiser(tmp_path, lambda: LocalMaster.from_text(text["o"])).visitor_id("phone", SOMEBODY, NOW)
    with pytest.raises(UserError, match="did not wrap"):
        Pseudonymiser(tmp_path, lambda: LocalMaster.from_text(text["n"]))
    KeyRing.open(tmp_path).renew(LocalMaster.from_text(f"{text['n']},{text['o']}"))
    after = Pseudonymiser(tmp_path, lambda: LocalMaster.from_text(text["n"])).visitor_id("phone", SOMEBODY, NOW)
    assert before == after


def test_a_master_key_that_has_not_changed_is_not_said_to_be_new(keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = (urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2))
    monkeypatch.setenv("PIPELINE_MASTER_KEY", old)
    assert keys("create").exit_code == 0
    ring = Path(".pipeline/keys/ring.json")
    before = ring.read_bytes()
    for unchanged in (old, f"{old},{new}", f"{old},{old}"):
        monkeypatch.setenv("PIPELINE_MASTER_KEY", unchanged)
        refused = keys("rotate", "--master")
        assert "has not changed, so nothing was done: set PIPELINE_MASTER_KEY to NEW,OLD" in str(refused.exception)
        assert (refused.output, ring.read_bytes()) == ("", before)
    monkeypatch.setenv("PIPELINE_MASTER_KEY", f"{new},{old}")
    assert "everything is wrapped with the new master key" in keys("rotate", "--master").output
    assert "wrapped with NEW already" in str(keys("rotate", "--master").exception)
    monkeypatch.setenv("PIPELINE_MASTER_KEY", new)
    assert keys("rotate").exit_code == 0
    # Whoever names neither is told what it always was: another key than the ring's.
    monkeypatch.setenv("PIPELINE_MASTER_KEY", old)
    assert "did not wrap" in str(keys("rotate", "--master").exception)


def test_a_vaults_keys_are_renewed_in_the_vault_and_then_by_us(tmp_path: Path) -> None:
    with transit() as (vault, stand_in):
        ring, _ = new_ring(tmp_path, vault)
        made = Pseudonymiser(tmp_path, lambda: vault).visitor_id("phone", SOMEBODY, NOW)
        with pytest.raises(UserError, match=r"has not changed, .* rotate its transit keys in the vault"):
            ring.renew(vault)
        for versions in stand_in.keys.values():
            versions.append(token_bytes(32))
        ring.renew(vault)
        for versions in stand_in.keys.values():
            versions[0] = token_bytes(32)  # as good as forgotten
        assert Pseudonymiser(tmp_path, lambda: vault).visitor_id("phone", SOMEBODY, NOW) == made
        with pytest.raises(UserError, match="has not changed"):
            ring.renew(vault)


@pytest.mark.parametrize("file", ["master.key", "ring.json"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, file: str, mode: int) -> None:
    new_ring(tmp_path)
    (tmp_path / file).chmod(mode)
    with pytest.raises(UserError, match="chmod 600"):
        pseudonymiser(tmp_path)


def test_a_damaged_ring_is_one_sentence(tmp_path: Path) -> None:
    new_ring(tmp_path)
    (tmp_path / "ring.json").write_text('{"version": 1}')
    with pytest.raises(UserError, match="damaged"):
        pseudonymiser(tmp_path)


def test_what_is_wrapped_is_bound_to_its_scope_and_name(tmp_path: Path) -> None:
    master = LocalMaster.create_file(tmp_path / "master.key")
    wrapped = master.wrap("period", "a", b"s" * 32)
    assert master.unwrap("period", "a", wrapped) == b"s" * 32
    for scope, name in (("identity", "a"), ("period", "b")):
        with pytest.raises(UserError, match="did not wrap"):
            master.unwrap(scope, name, wrapped)  # type: ignore[arg-type]


class _Transit(BaseHTTPRequestHandler):
    """A stand-in of the part of Vault's transit engine that is asked for, by its API documentation; no real Vault."""

    #: By name, every version of a key.
    keys: dict[str, list[bytes]]
    deletable: set[str]
    token: str
    seen: list[str]
    #: What fails: the last part of a path (`config`) or a method (`DELETE`), with the status that is answered.
    failing: dict[str, int]
    #: Whether a DELETE is done and its answer lost.
    losing: bool

    def _answer(self, status: int, data: dict[str, Any] | None = None, errors: tuple[str, ...] = ()) -> None:
        body = json.dumps({"errors": errors} if status >= 400 else {"data": data}).encode() if status != 204 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.seen.append(f"POST {self.path}")
        if self.headers["X-Vault-Token"] != self.token:
            return self._answer(403, {})
        match self.path.split("/")[3:]:
            case ["keys", name]:
                assert body == {"type": "aes256-gcm96"}
                self.keys.setdefault(name, [token_bytes(32)])
                return self._answer(204)
            case ["keys", _, "config"] if "config" in self.failing:
                return self._answer(self.failing["config"])
            case ["keys", name, "config"] if name not in self.keys:
                return self._answer(400, errors=(f"no existing key named {name} could be found",))
            case ["keys", name, "config"]:
                assert body == {"deletion_allowed": True}
                self.deletable.add(name)
                return self._answer(204)
            case [("encrypt" | "decrypt") as what, name] if name in self.keys:
                versions, bound = self.keys[name], b64decode(body["associated_data"])
                if what == "encrypt":
                    sealed = AESGCM(versions[-1]).encrypt(bytes(12), b64decode(body["plaintext"]), bound)
                    return self._answer(200, {"ciphertext": f"vault:v{len(versions)}:{sealed.hex()}"})
                _, version, text = body["ciphertext"].split(":")
                try:
                    opened = AESGCM(versions[int(version[1:]) - 1]).decrypt(bytes(12), bytes.fromhex(text), bound)
                except InvalidTag:
                    return self._answer(400, {})
                return self._answer(200, {"plaintext": b64encode(opened).decode()})
        return self._answer(400, {})

    def do_DELETE(self) -> None:
        self.seen.append(f"DELETE {self.path}")
        name = self.path.split("/")[-1]
        if "DELETE" in self.failing:
            return self._answer(self.failing["DELETE"])
        if name not in self.keys:
            return self._answer(400, errors=(f"error deleting policy {name}: could not delete key; not found",))
        if name not in self.deletable:
            return self._answer(400, errors=(f"error deleting policy {name}: deletion is not allowed for this key",))
        del self.keys[name]
        return self._answer(502 if self.losing else 204)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def transit() -> Iterator[tuple[VaultMaster, type[_Transit]]]:
    state = {"keys": {}, "deletable": set(), "token": "t0ken", "seen": [], "failing": {}, "losing": False}
    handler = type("Handler", (_Transit,), state)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield VaultMaster(f"http://127.0.0.1:{server.server_port}", "t0ken", "transit", "check-ins"), handler
        finally:
            server.shutdown()
            thread.join()


def test_a_vault_wraps_and_its_deleted_key_makes_every_copy_worthless(tmp_path: Path) -> None:
    with transit() as (vault, stand_in):
        ring, _ = new_ring(tmp_path, vault)
        made = Pseudonymiser(tmp_path, lambda: vault)
        before, after = (made.visitor_id("phone", SOMEBODY, at) for at in (EDGE - 1, EDGE))
        assert Linker(tmp_path, lambda: vault).link(before, EDGE - 1, EDGE + 1) == [before, after]
        copy = (tmp_path / "ring.json").read_bytes()
        how = ring.destroy(vault, "202108292000", NOW + 60 * DAY, RETENTION, early=False).how
        assert "deleted in the vault" in how
        assert "unless a backup of the vault" in how
        assert f"check-ins-period-{ring.ring}-202108292000" not in stand_in.keys
        made.refresh()
        assert made.visitor_id("phone", SOMEBODY, EDGE) == after
        (tmp_path / "ring.json").write_bytes(copy)
        old = KeyRing.open(tmp_path)
        with pytest.raises(UserError, match="status 400"):
            old.period_secret(vault, old.periods[0])
        # So the tracer, with its copy of the ring from before, links it no more either.
        with pytest.raises(UserError, match="status 400"):
            Linker(tmp_path, lambda: vault)


@pytest.mark.parametrize(
    "failing", [{"config": 403}, {"DELETE": 403}, {"config": 503}, {"DELETE": 503}, {"config": 404}]
)
def test_a_destruction_that_the_vault_broke_off_is_finished_when_it_works_again(
    tmp_path: Path, failing: dict[str, int]
) -> None:
    with transit() as (vault, stand_in):
        ring, _ = new_ring(tmp_path, vault)
        name, later = "202108292000", NOW + 60 * DAY
        copy = (tmp_path / "ring.json").read_bytes()
        stand_in.failing = failing
        for _ in range(2):
            with pytest.raises(UserError, match=f"is not finished.*then go on with: pipeline keys destroy {name}"):
                ring.destroy(vault, name, later, RETENTION, early=False)
            assert not (tmp_path / "receipts" / f"{name}.json").exists()
            assert name in ring.to_destroy(later, RETENTION)

        stand_in.failing = {}
        receipt = ring.destroy(vault, name, later + DAY, RETENTION, early=False)
        assert (receipt.period, receipt.destroyed_at) == (name, "2021-11-15T20:00:00.000Z")
        assert ring.periods[0].destroyed_at == later
        assert name not in ring.to_destroy(later + DAY, RETENTION)
        assert f"check-ins-period-{ring.ring}-{name}" not in stand_in.keys
        (tmp_path / "ring.json").write_bytes(copy)
        old = KeyRing.open(tmp_path)
        with pytest.raises(UserError, match="status 400"):
            old.period_secret(vault, old.periods[0])


def test_a_key_that_the_vault_deleted_without_our_learning_of_it_is_destroyed(tmp_path: Path) -> None:
    with transit() as (vault, stand_in):
        ring, _ = new_ring(tmp_path, vault)
        stand_in.losing = True
        with pytest.raises(UserError, match="is not finished"):
            ring.destroy(vault, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
        assert f"check-ins-period-{ring.ring}-202108292000" not in stand_in.keys
        ring.destroy(vault, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
        assert (tmp_path / "receipts" / "202108292000.json").exists()


def test_a_vault_that_is_away_or_another_one_without_the_key_destroys_nothing(tmp_path: Path) -> None:
    with transit() as (vault, _):
        ring, _ = new_ring(tmp_path, vault)
        with transit() as (another, _), pytest.raises(UserError, match="status 400"):
            ring.destroy(another, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
    with pytest.raises(UserError, match="does not answer"):
        ring.destroy(vault, "202108292000", NOW + 60 * DAY, RETENTION, early=False)
    assert KeyRing.open(tmp_path).periods[0].wrapped is not None


def test_a_vault_that_refuses_or_is_away_is_one_sentence_without_the_token(tmp_path: Path) -> None:
    with transit() as (vault, stand_in):
        stand_in.token = "another"
        with pytest.raises(UserError, match="forbids POST keys/") as refused:
            new_ring(tmp_path, vault)
        assert "t0ken" not in str(refused.value)
    with pytest.raises(UserError, match="does not answer"):
        new_ring(tmp_path, vault)
    with pytest.raises(UserError, match="must be https"):
        VaultMaster("http://vault.example:8200", "t0ken", "transit", "check-ins")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in list(os.environ):
        if name.upper().startswith("PIPELINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(command, arguments)
        shown.append(result.output + str(result.exception or ""))
        return result

    run.shown = shown  # type: ignore[attr-defined]
    return run


def test_no_command_shows_key_material(tmp_path: Path, keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.commands.keys._now", lambda: NOW)
    assert keys("create", "--edge", "2021-09-12T20:00:00Z").exit_code == 0
    folder = tmp_path / ".pipeline" / "keys"
    made = pseudonymiser(folder)
    before, after = (made.visitor_id("phone", SOMEBODY, at) for at in (EDGE - 1, EDGE))
    masters = [(folder / "master.key").read_text()]
    assert "current" in keys("list").output
    assert keys("rotate").output == "every period to come has its key already\n"
    assert keys("rotate", "--at", "2021-09-16T20:00:00Z").exit_code == 0
    assert "delete the old one with its copy of the ring" in keys("rotate", "--master").output
    masters.append((folder / "master.key").read_text())
    asked = ("link", after, "--case", "c-17", "--purpose")
    assert keys(*asked, "contact-tracing").output.split() == [before, after]
    noted = json.loads((tmp_path / ".pipeline" / "audit.jsonl").read_text().splitlines()[-1])
    assert (noted["action"], noted["purpose"], noted["case"], noted["persons"]) == (
        "link",
        "contact-tracing",
        "c-17",
        1,
    )
    assert after not in str(noted)
    assert keys(*asked, "curiosity").exit_code == 1
    assert keys("linking-key", "tracer.key").exit_code == 0
    masters.append(Path("tracer.key").read_text())
    assert keys("destroy", "--over").exit_code == 0
    assert keys("destroy", "202108292000").exit_code == 1
    destroyed = keys("destroy", "202108292000", "--early")
    assert json.loads(destroyed.output)["period"] == "202108292000"
    # Without its receipt it is one that was broken off.
    (folder / "receipts" / "202108292000.json").unlink()
    assert json.loads(keys("destroy", "--over").output)["period"] == "202108292000"
    assert "destroyed" in keys("list").output

    ring, master = KeyRing.open(folder), from_file(folder)
    material = [each.strip().partition(":")[2] for each in masters] + [
        each.wrapped for each in ring.periods if each.wrapped
    ]
    material += [ring.period_secret(master, each).hex() for each in ring.periods if each.wrapped]
    everything = "".join(keys.shown)
    assert [each for each in material if each in everything] == []
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))


def test_nobody_is_linked_without_a_case_and_a_purpose_even_where_no_access_is_configured(keys: Any) -> None:
    assert keys("create").exit_code == 0
    somebody = pseudonymiser(Path(".pipeline/keys")).visitor_id("phone", SOMEBODY, time.time_ns() // 1_000_000)
    reasons = {"--case": "c-17", "--purpose": "contact-tracing"}
    for lacking in reasons:
        given = [word for option, value in reasons.items() if option != lacking for word in (option, value)]
        refused = keys("link", somebody, *given)
        assert (refused.exit_code, f"Missing option '{lacking}'" in refused.output) == (2, True)
    assert "such as c-17" in keys("link", somebody, "--case", "a\nb", "--purpose", "contact-tracing").output
    assert somebody not in "".join(keys.shown)
    assert "keys link" not in Path(".pipeline/audit.jsonl").read_text()


def test_a_second_ring_is_refused(keys: Any) -> None:
    assert keys("create").exit_code == 0
    again = keys("create")
    assert isinstance(again.exception, UserError)
    assert "is there already" in str(again.exception)


def test_who_changes_keys_is_noted_before_and_without_a_note_no_key_is_changed(
    tmp_path: Path, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, ring = tmp_path / ".pipeline" / "audit.jsonl", tmp_path / ".pipeline" / "keys" / "ring.json"
    monkeypatch.setattr("pipeline.commands.keys._now", lambda: NOW)
    assert keys("create", "--edge", "2021-09-12T20:00:00Z").exit_code == 0
    for words in (
        ("rotate",),  # there is nothing to do
        ("rotate", "--at", "2021-09-16T20:00:00Z"),
        ("rotate", "--at", "2021-09-16T20:00:00Z"),  # an edge already
        ("rotate", "--master"),
        ("linking-key", "tracer.key"),
        ("destroy", "--over"),  # none is
        ("destroy", "202108292000"),  # too early
        ("destroy", "202108292000", "--early"),
    ):
        keys(*words)
    monkeypatch.setattr("pipeline.commands.keys._now", lambda: NOW + 15 * 86_400_000)
    assert keys("rotate").output.startswith("new keys: ")
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["action"], each["what"]) for each in noted] == [
        ("keys create", str(ring.parent)),
        ("keys rotate", "at 2021-09-16T20:00:00.000Z"),
        ("keys rotate", "the master key"),
        ("keys linking-key", "tracer.key"),
        ("keys destroy", "202108292000, early"),
        ("keys rotate", "periods to come"),
    ]

    monkeypatch.setattr("pipeline.commands.keys._now", lambda: NOW + 60 * 86_400_000)
    log.write_text("not an entry\n")
    before = {path: path.read_bytes() for path in ring.parent.rglob("*") if path.is_file()}
    for words in (("rotate", "--master"), ("destroy", "--over"), ("linking-key", "other.key")):
        assert "nothing about access is changed" in str(keys(*words).exception), words
    assert before == {path: path.read_bytes() for path in ring.parent.rglob("*") if path.is_file()}
    assert not Path("other.key").exists()
