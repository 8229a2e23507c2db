"""One person, one spelling; two persons, two; and what could be either is refused without being repeated."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.privacy.canonical import KINDS, LONGEST, CanonicalError, canonical
from schemas.gateway_scan import IdentifierKind


@pytest.mark.parametrize(
    "typed",
    [
        "+6281234567890",
        "+62 812-3456-7890",
        "0062 812 3456 7890",
        "081234567890",
        "0812.3456.7890",
        "+62 (0)812 3456 7890",
        "＋６２８１２３４５６７８９０",
        "٠٨١٢٣٤٥٦٧٨٩٠",
        " \u200e+62\u00a0812\u20113456\u20137890\ufeff",
    ],
)
def test_a_phone_number_has_one_spelling_however_it_is_typed(typed: str) -> None:
    assert canonical("phone", typed, "62") == "+6281234567890"


@pytest.mark.parametrize(
    ("kind", "typed", "spelt"),
    [
        ("national_id", "3171 0123 0490-0001", "3171012304900001"),
        ("national_id", "ab-12.345/c", "AB12345C"),
        ("email", " Budi.Santoso+mall@Example.COM ", "budi.santoso+mall@example.com"),
        ("email", "budi@BÜCHER.example", "budi@xn--bcher-kva.example"),
        ("email", "bu\u0301di@example.com", "b\u00fadi@example.com"),
        ("device", "0F8FAD5B-D9CB-469F-A165-70867728950E", "0f8fad5bd9cb469fa16570867728950e"),
        ("device", "00:1B:44:11:3A:B7", "001b44113ab7"),
    ],
)
def test_each_kind_has_one_spelling(kind: IdentifierKind, typed: str, spelt: str) -> None:
    assert canonical(kind, typed) == spelt


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        ("phone", "81234567890"),  # national without its 0, or international without its +
        ("phone", "6281234567890"),
        ("phone", "+62812"),
        ("phone", "+6281234567890123"),
        ("phone", "+62 812 call me"),
        ("phone", "++6281234567890"),
        ("national_id", "12"),
        ("national_id", "3171*0123"),
        ("email", "budi.example.com"),
        ("email", "budi@localhost"),
        ("email", "a b@example.com"),
        ("email", "@example.com"),
        ("device", "short"),
        ("device", ""),
    ],
)
def test_what_is_no_identifier_is_refused_without_being_repeated(kind: IdentifierKind, typed: str) -> None:
    with pytest.raises(CanonicalError) as refused:
        canonical(kind, typed, "62")
    assert not typed or typed not in str(refused.value)


def test_a_national_number_needs_a_country() -> None:
    with pytest.raises(CanonicalError, match="must begin with"):
        canonical("phone", "081234567890")


@given(kind=st.sampled_from(KINDS), raw=st.text(max_size=LONGEST + 5))
def test_a_canonical_spelling_is_its_own(kind: IdentifierKind, raw: str) -> None:
    try:
        spelt = canonical(kind, raw, "62")
    except CanonicalError:
        return
    assert canonical(kind, spelt, "62") == spelt


@given(number=st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True), data=st.data())
def test_separators_and_scripts_do_not_change_who_it_is(number: str, data: st.DataObject) -> None:
    typed = []
    for character in number:
        zero = data.draw(st.sampled_from("0０٠०"))
        typed.append(chr(ord(zero) + int(character)) if character.isdigit() else character)
        typed.append(data.draw(st.sampled_from(["", " ", "-", "\u2009", "\u200b", "."])))
    assert canonical("phone", "".join(typed)) == canonical("phone", number)
    assert canonical("phone", unicodedata.normalize("NFD", "".join(typed))) == canonical("phone", number)
