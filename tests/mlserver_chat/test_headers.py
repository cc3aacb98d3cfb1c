"""The text of headers on the wire, and headers that come twice."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver_chat import InvalidInput
from mlserver_chat.requests.headers import (
    check_unique_headers,
    declare_unique_header,
    header_text,
    header_value,
)


@pytest.mark.parametrize(
    ("arrived", "text"),
    [
        ("acme", "acme"),
        ("Zo%C3%AB", "Zoë"),
        ("Zo%c3%ab", "Zoë"),
        ("Zoë".encode().decode("latin-1"), "Zoë"),
        ("Zo\xeb", "Zoë"),
        ("日本", "日本"),
        ("a%62", "a%62"),
        ("50%", "50%"),
        ("%C3", "%C3"),
        ("a%20b", "a%20b"),
        ("Zo%C3%AB%20%25", "Zoë %"),
        ("Zoë %41".encode().decode("latin-1"), "Zoë %41"),
        ("a\tb", "a\tb"),
        ("a%09b", "a\tb"),
    ],
)
def test_one_text_comes_out_of_utf_8_latin_1_and_percent_encoding(arrived: str, text: str) -> None:
    assert header_text(arrived) == text


@given(st.text() | st.text("%C3AB\xc3\xab\xa9é「\t"))
def test_a_value_arrives_as_the_text_that_was_sent(arrived: str) -> None:
    value = header_value(arrived)
    assert value.isascii() and value.isprintable()
    assert header_text(value) == header_text(arrived)
    assert header_value(value) == value


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)) | st.text("%234567", max_size=9))
def test_texts_in_ascii_stay_apart(text: str) -> None:
    if not re.search("%[0189a-fA-F][0-9a-fA-F]|%7[fF]", text):
        assert header_text(text) == header_value(text) == text


def check(*headers: tuple[str, str]) -> None:
    check_unique_headers(headers)


@pytest.mark.parametrize("name", ["x-request-id", "x-idempotency-key", "x-tenant", "seldon-model"])
def test_a_header_that_names_two_identities_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"header '{name}' came twice"):
        check((name, "a"), ("x-other", "c"), (name, "b"))


def test_equal_values_and_other_headers_may_come_twice() -> None:
    check(("x-tenant", "Zo%C3%AB"), ("x-tenant", "Zo\xeb"), ("accept", "a"), ("accept", "b"))


def test_a_registered_header_is_checked() -> None:
    check(("x-team", "a"), ("x-team", "b"))
    declare_unique_header("x-team")
    with pytest.raises(InvalidInput, match="x-team"):
        check(("x-team", "a"), ("x-team", "b"))
