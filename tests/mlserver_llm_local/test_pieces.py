"""Streamed pieces add up to the answer. They contain no half characters and no part of a stop text."""

from hypothesis import given
from hypothesis import strategies as st

from mlserver_llm_local.pieces import REPLACEMENT, TextPieces


def decode(tokens: list[int]) -> str:
    """Decode tokens that are single bytes, as the most extreme tokenizers have them."""
    return bytes(tokens).decode("utf-8", errors="replace")


def pieces_of(text: str, stops: list[str]) -> tuple[list[str], TextPieces]:
    pieces = TextPieces(decode, stops)
    seen: list[str] = []
    for token in text.encode():
        seen.append(pieces.add(token))
        if pieces.stopped:
            break
    seen.append(pieces.end())
    return seen, pieces


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=REPLACEMENT)))
def test_pieces_add_up_to_the_text(text):
    seen, pieces = pieces_of(text, [])
    assert "".join(seen) == text
    assert not any(REPLACEMENT in piece for piece in seen)
    assert not pieces.stopped


@given(st.text("ab🙂", max_size=30), st.lists(st.text("ab🙂", min_size=1, max_size=4), max_size=3))
def test_the_answer_ends_before_the_first_stop_text(text, stops):
    seen, pieces = pieces_of(text, stops)
    first = min((position for stop in stops if (position := text.find(stop)) >= 0), default=None)
    assert pieces.stopped == (first is not None)
    if first is None:
        assert "".join(seen) == text
    else:
        # Tokens come one by one, so a longer stop text may be complete only after a shorter one further right.
        ended = "".join(seen)
        assert text.startswith(ended) and any(text.startswith(stop, len(ended)) for stop in stops)
        assert not any(stop in ended for stop in stops)


def test_the_beginning_of_a_stop_text_alone_is_kept():
    seen, _ = pieces_of("abab END of ab", ["END.", "abc"])
    assert "".join(seen) == "abab END of ab"


def test_incomplete_bytes_are_shown_at_the_end():
    pieces = TextPieces(decode)
    assert pieces.add(0xF0) == ""
    assert pieces.end() == REPLACEMENT
