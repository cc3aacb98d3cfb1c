"""Generates long status questions: a report, later events, the question itself and the reason for it.

Real users seldom write a single clause. Freely combined parts resemble their questions more than a fixed list does.
"""

import re
from random import Random

from training.support_tiny.phrases import Phrases

_SLOT = re.compile(r"\{(\w+)\}")


def filled(rng: Random, text: str, slots: dict[str, list[str]]) -> str:
    """Replace each slot of a text by one of its words. Other placeholders stay."""
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
"""Orders of the parts of a question. Likely orders are repeated."""
UNNUMBERED = (
    *[("wants", "asks")] * 6,
    *[("asks", "wants")] * 3,
    *[("asks",), ("wants", "since", "asks"), ("wants", "asks", "reasons")],
    *NUMBERED[:-2],
)
JOINTS = (" ", " ", ", ", ", ", ". ", ". ", "... ", " - ", "; ", "! ", " and ", ": ", "\n", " so ")


class StatusQuestions:
    """Draws questions that contain the placeholders {ref}, {thing} and {utterance}."""

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
        """Draw a question of several parts. A question about a numbered issue contains {ref}."""
        names = self.rng.choice(NUMBERED if numbered else UNNUMBERED)
        text = self._part(names[0])
        for name in names[1:]:
            text += self.rng.choice(JOINTS) + self._part(name)
        return text

    def followup(self) -> str:
        """Draw a question that follows an answer, such as "and the other one?"."""
        return self._part("followups")

    def unnamed(self) -> str:
        """Draw a name for an issue without a number, such as "my ticket"."""
        return self.rng.choice(self.slots["unnamed"])
