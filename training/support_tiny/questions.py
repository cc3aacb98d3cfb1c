"""Words longer status questions: what was reported, what has happened since, what is asked and why it matters.

Real users seldom write the one clause that a list of questions holds; parts that combine freely come closer to them.
"""

import re
from random import Random

from training.support_tiny.phrases import Phrases

_SLOT = re.compile(r"\{(\w+)\}")


def filled(rng: Random, text: str, slots: dict[str, list[str]]) -> str:
    """The text with a word for each of its slots; other placeholders stay."""
    return _SLOT.sub(lambda found: rng.choice(slots.get(found[1], [found[0]])), text)


NUMBERED = (
    *[("reported", "asks")] * 3,
    *[("asks", "reported")] * 2,
    *[("ref", "asks"), ("asks", "ref")],
    *[("reported",), ("reported", "since"), ("ref", "since")],
    *[("reported", "since", "asks"), ("reported", "asks", "reasons"), ("reported", "reasons", "asks")],
    *[("reasons", "reported", "asks"), ("wants", "ref", "asks"), ("wants", "reported", "asks")],
    *[("question", "since"), ("question", "reasons"), ("since", "question"), ("reasons", "question")],
    *[("complaint", "reported", "asks"), ("complaint", "question")],
)
"""Orders of the parts of a question; an order stands as often as it is likely."""
UNNUMBERED = (
    *[("wants", "asks")] * 6,
    *[("asks", "wants")] * 3,
    *[("asks",), ("wants", "since", "asks"), ("wants", "asks", "reasons")],
    *NUMBERED[:-2],
)
JOINTS = (" ", " ", ", ", ", ", ". ", ". ", "... ", " - ", "; ", "! ", " and ", ": ", "\n", " so ")


class StatusQuestions:
    """Draws questions that still hold the placeholders {ref}, {thing} and {utterance}."""

    def __init__(self, phrases: Phrases, rng: Random) -> None:
        self.rng = rng
        self.parts = phrases.questions
        self.slots = phrases.slots
        self.simple = phrases.status["numbered"]

    def _part(self, name: str) -> str:
        if name == "ref":
            return "{ref}"
        if name == "complaint":
            return "{utterance}"
        return filled(self.rng, self.rng.choice(self.simple if name == "question" else self.parts[name]), self.slots)

    def question(self, numbered: bool) -> str:
        """One question of several parts; {ref} stands in it where it is about a numbered issue."""
        names = self.rng.choice(NUMBERED if numbered else UNNUMBERED)
        text = self._part(names[0])
        for name in names[1:]:
            text += self.rng.choice(JOINTS) + self._part(name)
        return text

    def followup(self) -> str:
        """A question that only makes sense after an answer, such as "and the other one?"."""
        return self._part("followups")

    def unnamed(self) -> str:
        """An issue without its number, such as "my ticket"."""
        return self.rng.choice(self.slots["unnamed"])
