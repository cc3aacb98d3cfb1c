"""The error tree keeps its promises about statuses and first words."""

import pytest
from mlserver.errors import MLServerError

from mlserver_chat import errors


def leaves(kind: type[errors.ChatError] = errors.ChatError) -> list[type[errors.ChatError]]:
    return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]


def test_every_error_of_this_module_is_drawn_in_its_tree() -> None:
    for leaf in leaves():
        if leaf.__module__ == errors.__name__:
            assert f"{leaf.__name__} " in (errors.__doc__ or "")
            assert issubclass(leaf, MLServerError)


def test_no_error_of_this_module_makes_core_2_send_the_request_again() -> None:
    assert not {leaf.status.value for leaf in leaves() if leaf.__module__ == errors.__name__} & {400, 404, 502}


@pytest.mark.parametrize(
    ("leaf", "sentence"),
    [
        (errors.RateLimited, "rate limited: slow down"),
        (errors.UpstreamFailed, "upstream failed: slow down"),
        (errors.NotReachable, "not reachable: slow down"),
    ],
)
def test_grpc_clients_can_tell_kinds_by_the_first_words(leaf: type[errors.ChatError], sentence: str) -> None:
    assert str(leaf("slow down")) == sentence
    assert str(leaf(sentence)) == sentence


def test_an_internal_error_says_nothing_about_its_cause() -> None:
    assert str(errors.InternalError()) == "internal error: the server log has the details"


@pytest.mark.parametrize(
    ("status", "leaf"), [(422, errors.InvalidInput), (503, errors.NotReachable), (500, errors.UpstreamFailed)]
)
def test_the_error_of_another_server_becomes_one_of_ours(status: int, leaf: type[errors.ChatError]) -> None:
    assert type(errors.from_status(status, "x")) is leaf


def test_a_sentence_of_another_server_is_cut() -> None:
    sentence = str(errors.from_status(422, "x" * 5000))
    assert len(sentence) == errors.MAX_SENTENCE and sentence.endswith("x…")
