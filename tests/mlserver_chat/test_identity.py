"""Ids and headers of requests, and the key of an append."""

import pytest
from mlserver.types import InferenceRequest, Parameters

from mlserver_chat import InvalidInput, Message, append_key, base_name, request_identity
from mlserver_chat.requests.identity import carried_headers, check_memory_id, forwarded_headers

HELLO = [Message.of_text("user", "Hello")]


def request(headers: dict[str, str] | None = None, request_id: str | None = None) -> InferenceRequest:
    return InferenceRequest(id=request_id, inputs=[], parameters=Parameters(headers=headers) if headers else None)


def test_the_header_takes_precedence_over_the_id_of_the_request() -> None:
    assert request_identity(request({"X-Request-Id": "h"}, "i")) == "h"
    assert request_identity(request(None, "i")) == "i"
    assert request_identity(request()) == ""


def test_x_headers_and_the_request_id_are_forwarded() -> None:
    headers = {"x-tenant": "a", "authorization": "secret", "content-type": "application/json"}
    assert forwarded_headers(request(headers, "i")) == {"x-tenant": "a", "x-request-id": "i"}


@pytest.mark.parametrize(("name", "value"), [("x-foo-bin", "a"), ("x-foo!", "a"), ("x-föö", "a")])
def test_a_header_whose_name_grpc_cannot_carry_is_not_forwarded(name: str, value: str) -> None:
    assert carried_headers({name: value, "X-Tenant": "a"}) == {"x-tenant": "a"}


def test_header_values_are_sent_in_ascii() -> None:
    assert carried_headers({"X-Request-Id": "ü\t1 %", "x-foo": "a\tb"}, "other") == {
        "x-request-id": "%C3%BC%091%20%25",
        "x-foo": "a%09b",
    }
    assert carried_headers({"x-request-id": ""}, "other") == {"x-request-id": "other"}


@pytest.mark.parametrize(("name", "base"), [("remember-user_3", "remember-user"), ("m", "m"), ("a_b", "a_b")])
def test_the_base_name_lacks_the_version_suffix_of_core_2(name: str, base: str) -> None:
    assert base_name(name) == base


def test_the_append_key_depends_on_conversation_request_model_and_messages() -> None:
    key = append_key("m", request(None, "1"), "a_1", HELLO)
    assert key.digest == append_key("m", request(None, "1"), "a_2", HELLO).digest
    others = [
        append_key("m2", request(None, "1"), "a", HELLO),
        append_key("m", request(None, "2"), "a", HELLO),
        append_key("m", request(None, "1"), "b", HELLO),
        append_key("m", request(None, "1"), "a", [*HELLO, *HELLO]),
    ]
    assert len({key.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("memory_id", ["../x", "a/b", "CON", "🚀", "a" * 255, " "])
def test_any_short_text_is_a_memory_id(memory_id: str) -> None:
    assert check_memory_id(memory_id) == memory_id


@pytest.mark.parametrize(("memory_id", "names"), [("", "empty"), ("a" * 256, "256 characters"), ("a\0b", "NUL")])
def test_a_memory_id_that_is_empty_or_long_or_has_nul_is_refused(memory_id: str, names: str) -> None:
    with pytest.raises(InvalidInput, match=names):
        check_memory_id(memory_id)
