"""A venue's code is taken if its venue signed it and it is still good; anything else is refused, and so is using it twice."""

import base64
import hmac
import json
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jwt
import pytest
import segno
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pipeline.commands.venues import command
from pipeline.errors import UserError
from pipeline.venue_codes import CODE_TYPE, CodeError, CodeSigner, VenueCodes, create_signing_key, retire_key
from tests.gateway import make_ring, now_ms, rfc3339, scan, site

NOW = 1_632_045_600_000
SECOND = 1_000
DAY = 86_400_000
YEAR = timedelta(days=365)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_signing_key(tmp_path / "codes")
    return tmp_path / "codes"


def codes(folder: Path, mode: Any = "required") -> VenueCodes:
    return VenueCodes(folder / "venue-keys.json", mode)


def verdict(judge: VenueCodes, code: str, at: int = NOW, received: int | None = None) -> str:
    try:
        return judge.verify(code, at, at if received is None else received).venue_id
    except CodeError as error:
        return str(error)


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(folder: Path, claims: dict[str, Any], **header: Any) -> str:
    key = load_pem_private_key((folder / "venue-signing.pem").read_bytes(), None)
    kid = json.loads((folder / "venue-keys.json").read_text())["keys"][0]["kid"]
    return jwt.encode(claims, key, "ES256", headers={"kid": kid, "typ": CODE_TYPE} | header)  # type: ignore[arg-type]


GOOD = {"sub": "mall-0042", "iat": NOW // 1000, "exp": NOW // 1000 + 86_400}


def test_a_venues_own_code_names_it_until_it_expires(folder: Path) -> None:
    code = CodeSigner(folder).code("mall-0042", NOW, timedelta(days=1))
    judge = codes(folder)
    assert verdict(judge, code) == "mall-0042"
    assert verdict(judge, code, NOW + DAY - 1) == "mall-0042"
    assert "expired" in verdict(judge, code, NOW + DAY)
    assert "not valid yet" in verdict(judge, code, NOW - 60 * SECOND)
    assert verdict(judge, code, NOW + 1, received=NOW + 3 * DAY) == "mall-0042"  # a scan that comes late


def test_what_no_key_of_the_set_signed_is_forged(folder: Path, tmp_path: Path) -> None:
    judge = codes(folder)
    code = CodeSigner(folder).code("mall-0042", NOW, YEAR)
    head, body, mark = code.split(".")
    create_signing_key(tmp_path / "others")
    theirs = CodeSigner(tmp_path / "others").code("mall-0042", NOW, YEAR)
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    none = header | {"alg": "none"}
    symmetric = part(header | {"alg": "HS256"}) + "." + body
    public = (folder / "venue-keys.json").read_bytes()
    with_public = f"{symmetric}.{part(hmac.new(public, symmetric.encode(), sha256).digest())}"
    forged = {
        "another venue": f"{head}.{part(GOOD | {'sub': 'mall-0043'})}.{mark}",
        "another end": f"{head}.{part(GOOD | {'exp': GOOD['exp'] * 2})}.{mark}",
        "no signature": f"{head}.{body}.",
        "alg none": f"{part(none)}.{body}.",
        "alg None": f"{part(header | {'alg': 'None'})}.{body}.",
        "alg HS256, signed with the public key": with_public,
        "another's key": theirs,
        "another's key under our name": part(header) + "." + ".".join(theirs.split(".")[1:]),
        "a zero signature": f"{head}.{body}.{part(bytes(64))}",
        "a cut signature": code[:-4],
        "its own key in the header": signed(folder, GOOD, jwk={"kty": "EC"}),
        "a key to be fetched": signed(folder, GOOD, jku="https://forger.example"),
        "crit": signed(folder, GOOD, crit=["x"], x=1),
        "another type": signed(folder, GOOD, typ="JWT"),
        "nothing": "",
        "three dots": "...",
        "not base64": "%.%.%",
        "unknown key": signed(folder, GOOD, kid="unknown"),
        "key as a number": signed(folder, GOOD, kid="1"),
    }
    taken = {
        name: said
        for name, each in forged.items()
        if (said := verdict(judge, each)) and re.fullmatch(r"mall-004\d", said)
    }
    assert taken == {}
    assert verdict(judge, code) == "mall-0042"


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "mall-0042"},
        GOOD | {"sub": 7},
        GOOD | {"sub": "mall 42"},
        GOOD | {"sub": "v" * 65},
        GOOD | {"exp": "soon"},
        GOOD | {"exp": GOOD["exp"] + 0.5},
        GOOD | {"exp": GOOD["iat"]},
        GOOD | {"iat": None},
        GOOD | {"jti": "long-lived and with an id"},
        GOOD | {"exp": GOOD["iat"] + 60},  # short-lived and without one
        GOOD | {"exp": 10**400},
    ],
)
def test_a_signature_alone_makes_no_code(folder: Path, claims: dict[str, Any]) -> None:
    assert verdict(codes(folder), signed(folder, claims)) == "is no venue's code"


def test_a_displays_code_is_worth_nothing_minutes_later(folder: Path) -> None:
    code = CodeSigner(folder).code("mall-0042", NOW, timedelta(seconds=60))
    judge = codes(folder, "fresh")
    assert verdict(judge, code, NOW + 60 * SECOND) == "mall-0042"
    assert "expired" in verdict(judge, code, NOW + 60 * SECOND, received=NOW + 91 * SECOND)
    assert "expired" in verdict(judge, code, NOW + 91 * SECOND, received=NOW + 60 * SECOND)
    printed = CodeSigner(folder).code("mall-0042", NOW, YEAR)
    assert "printed" in verdict(judge, printed)


def test_a_retired_key_takes_its_codes_along_and_no_others(folder: Path) -> None:
    old = CodeSigner(folder).code("mall-0042", NOW, YEAR)
    kid = create_signing_key(folder)
    new = CodeSigner(folder).code("mall-0042", NOW, YEAR)
    judge = codes(folder)
    assert (verdict(judge, old), verdict(judge, new)) == ("mall-0042", "mall-0042")
    (first,) = [key["kid"] for key in json.loads((folder / "venue-keys.json").read_text())["keys"] if key["kid"] != kid]
    retire_key(folder, first)
    judge.refresh()
    assert "key that is not known" in verdict(judge, old)
    assert verdict(judge, new) == "mall-0042"
    with pytest.raises(UserError, match="has no key"):
        retire_key(folder, first)


def test_the_public_set_holds_nothing_private_and_the_private_key_is_ours_alone(folder: Path) -> None:
    keys = json.loads((folder / "venue-keys.json").read_text())["keys"]
    assert [set(key) for key in keys] == [{"kid", "use", "alg", "kty", "crv", "x", "y"}]
    assert (folder / "venue-signing.pem").stat().st_mode & 0o077 == 0
    (folder / "venue-signing.pem").chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        CodeSigner(folder)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys": [{}]}', '{"keys": [{"kid": "a", "kty": "RSA", "crv": "", "x": "", "y": ""}]}']
)
def test_a_damaged_set_is_one_sentence(folder: Path, text: str) -> None:
    (folder / "venue-keys.json").write_text(text)
    with pytest.raises(UserError):
        codes(folder)


def test_a_set_that_others_can_change_is_refused(folder: Path) -> None:
    (folder / "venue-keys.json").chmod(0o664)
    with pytest.raises(UserError, match="chmod 644"):
        codes(folder)


def test_other_curves_sign_no_codes(folder: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    for curve, good in ((SECP384R1(), False), (SECP256R1(), True)):
        key = generate_private_key(curve)
        (folder / "venue-signing.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        if good:
            CodeSigner(folder)
        else:
            with pytest.raises(UserError, match="P-256"):
                CodeSigner(folder)


def test_a_gateway_that_wants_codes_takes_their_venue_and_no_word_for_it(folder: Path, tmp_path: Path) -> None:
    now = now_ms()
    signer = CodeSigner(folder)
    given = {"venue_code_keys": folder / "venue-keys.json", "venue_codes": "required"}
    where = site(make_ring(tmp_path / "keys"), codes=codes(folder), **given)
    code = signer.code("mall-0042", now - DAY, YEAR)
    answer = where.send(scan(venue_id=None, venue_code=code))
    assert answer.status == 200
    assert where.outbox.sent[0].key == b"mall-0042"
    somebodys = scan(venue_id="6281234567890")
    for bad in (scan(), somebodys, scan(venue_id=None, venue_code=code[:-8] + "AAAAAAAA"), scan(venue_code=code)):
        refused = where.send(bad | {"event_id": "e-2"})
        assert refused.status == 422
        assert code[:40].encode() not in refused.body
    lax = site(tmp_path / "keys", codes=codes(folder, "optional"))
    assert lax.send(scan()).status == 200
    assert lax.send(scan(event_id="e-2", venue_id=None, venue_code="x.y.z")).status == 422
    assert site(tmp_path / "keys").send(scan(venue_id=None, venue_code=code)).status == 422


def test_a_displays_code_serves_everybody_once(folder: Path, tmp_path: Path) -> None:
    given = {"venue_code_keys": folder / "venue-keys.json", "venue_codes": "fresh"}
    where = site(make_ring(tmp_path / "keys"), codes=codes(folder, "fresh"), **given)
    now = now_ms()
    code = CodeSigner(folder).code("mall-0042", now, timedelta(seconds=60))

    def use(event_id: str, phone: str, kind: str = "check_in", at: int = now) -> int:
        who = {"kind": "phone", "value": phone}
        body = scan(
            event_id=event_id, venue_id=None, venue_code=code, identifier=who, event_type=kind, occurred_at=rfc3339(at)
        )
        return where.send(body).status

    assert [use("a", "+628990000001"), use("b", "+628990000002")] == [200, 200]
    assert use("a", "+628990000001") == 200  # the same request again: a duplicate
    assert use("c", "+628990000001", at=now + 1) == 422
    assert where.answers[-1].json["type"] == "urn:check-ins:problem:replayed"
    assert use("d", "+628990000001", kind="check_out", at=now + 2) == 200
    assert len(where.outbox.sent) == 3


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    for name in list(os.environ):
        if name.upper().startswith("PIPELINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(command, arguments)


def test_posters_have_the_code_and_the_name_whatever_it_is(run: Callable[..., Any]) -> None:
    assert run("signing-key").exit_code == 0
    name = 'Kopi "Bu & Pak" <script>alert(1)</script>\x07'
    Path("venues.ndjson").write_text(
        "\n".join(
            json.dumps({"venue_id": venue, "name": shown, "category": "mall"})
            for venue, shown in (("mall-0042", name), ("office.7", "Menara Tujuh"))
        )
    )
    made = run("qr", "--venues", "venues.ndjson")
    assert (made.exit_code, made.output) == (0, "2 codes in posters, good for 365 days\n")
    poster = ElementTree.parse("posters/mall-0042.svg").getroot()
    texts = [each.text for each in poster.iter() if each.text and each.text.strip()]
    assert texts == [name[:-1], name[:-1], "mall-0042"]
    assert not [each.tag for each in poster.iter() if "script" in each.tag]

    assert (
        run("qr", "office.7", "--format", "png", "--out", "png", "--prefix", "https://check-in.example/#").exit_code
        == 0
    )
    assert Path("png/office.7.png").read_bytes().startswith(b"\x89PNG")
    missing = run("qr", "mall-1", "--venues", "venues.ndjson")
    assert "has no venue mall-1" in str(missing.exception)
    assert run("qr").exit_code == 2


def test_a_poster_draws_the_very_code_that_gateways_take(folder: Path) -> None:
    from pipeline.venue_posters import poster_svg

    code = CodeSigner(folder).code("mall-0042", NOW, YEAR)
    poster = ElementTree.fromstring(poster_svg(code, "Mall", "mall-0042"))
    path = [each for each in poster.iter() if each.tag.endswith("path")][-1]  # the first is the white ground
    dark = _drawn(path.attrib["d"])
    expected = segno.make_qr(code, error="m").matrix_iter(border=4)
    assert dark == {(x, y) for y, row in enumerate(expected) for x, each in enumerate(row) if each}


def _drawn(path: str) -> set[tuple[int, int]]:
    """The modules that a path of horizontal strokes, one module high, covers."""
    x, y, dark = 0.0, 0.0, set()
    for step, numbers in re.findall(r"([Mmh])([-\d. ]*)", path):
        given = [float(each) for each in re.findall(r"-?[\d.]+", numbers)]
        if step == "M":
            x, y = given
        elif step == "m":
            x, y = x + given[0], y + given[1]
        else:
            dark |= {(int(x) + n, int(y)) for n in range(int(given[0]))}
            x += given[0]
    return dark


def test_a_displays_code_comes_from_the_command_line(run: Callable[..., Any]) -> None:
    run("signing-key")
    code = run("code", "mall-0042", "--seconds", "30").output.strip()
    judge = VenueCodes(Path(".pipeline/venue-keys/venue-keys.json"), "fresh")
    assert judge.verify(code, int(time.time() * 1000), int(time.time() * 1000)).venue_id == "mall-0042"
    assert run("signing-key", "--retire", "nobody").exit_code == 1
    assert "PRIVATE" not in run("signing-key").output
