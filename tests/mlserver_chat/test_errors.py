"""The error tree: statuses, and the first words of sentences."""

import pytest
from mlserver.errors import MLServerError

from mlserver_chat import errors


def leaves(kind: type[errors.ChatError] = errors.ChatError) -> list[type[errors.ChatError]]:
    return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]


def test_the_docstring_lists_every_error() -> None:
    for leaf in leaves():
        if leaf.__module__ == errors.__name__:
            assert f"{leaf.__name__} " in (errors.__doc__ or "")
            assert issubclass(leaf, MLServerError)


def test_no_error_makes_core_2_repeat_the_request() -> None:
    assert not {leaf.status.value for leaf in leaves() if leaf.__module__ == errors.__name__} & {400, 404, 502}


@pytest.mark.parametrize(
    ("leaf", "sentence"),
    [
        (errors.RateLimited, "rate limited: slow down"),
        (errors.UpstreamFailed, "upstream failed: slow down"),
        (errors.NotReachable, "not reachable: slow down"),
    ],
)
def test_a_sentence_begins_with_the_kind_of_error(leaf: type[errors.ChatError], sentence: str) -> None:
    assert str(leaf("slow down")) == sentence
    assert str(leaf(sentence)) == sentence


def test_an_internal_error_says_nothing_about_its_cause() -> None:
    assert str(errors.InternalError()) == "internal error: the server log has the details"


@pytest.mark.parametrize(
    ("status", "leaf"), [(422, errors.InvalidInput), (503, errors.NotReachable), (500, errors.UpstreamFailed)]
)
def test_from_status_returns_the_error_for_a_status(status: int, leaf: type[errors.ChatError]) -> None:
    assert type(errors.from_status(status, "x")) is leaf


def test_a_sentence_of_another_server_is_cut() -> None:
    sentence = str(errors.from_status(422, "x" * 5000))
    assert len(sentence) == errors.MAX_SENTENCE and sentence.endswith("x…")
