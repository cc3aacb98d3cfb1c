"""Generates single turns: complaints about a topic, status questions, issue numbers and states."""

from random import Random

from training.support_tiny.noise import pseudo_word, roughen
from training.support_tiny.phrases import Phrases, Topic
from training.support_tiny.prompts import NO_NUMBER, NOT_FOUND
from training.support_tiny.questions import StatusQuestions, filled


class Wording:
    """Draws phrases. Equal states of the random generator give equal phrases."""

    def __init__(self, phrases: Phrases, rng: Random) -> None:
        self.phrases = phrases
        self.rng = rng
        self.vocabulary = phrases.vocabulary
        self.questions = StatusQuestions(phrases, rng)

    def _pick(self, group: str) -> str:
        return filled(self.rng, self.rng.choice(self.phrases.frames[group]), self.phrases.slots)

    def _core(self, topic: Topic) -> str:
        """Draw the part of a complaint that names its topic."""
        kind = self.rng.random()
        frame = self._pick(self.rng.choices(("frames", "stories", "decoys"), (0.68, 0.22, 0.10))[0])
        if kind < 0.56:
            return frame.format(x=self.rng.choice(topic.says))
        if kind < 0.74:
            return frame.format(x=f"{self.rng.choice(topic.things)} {self.rng.choice(topic.symptoms)}")
        if kind < 0.94:
            words = topic.keywords if self.rng.random() < 0.75 else topic.things
            return self._pick("keyword_frames").format(x=self.rng.choice(words))
        return " ".join(self.rng.sample(topic.keywords, self.rng.randint(2, 4)))

    def _number_clause(self) -> str:
        return self._pick("numbers").format(n=self.rng.randint(1, 10 ** self.rng.randint(1, 5)))

    def _aside(self, topic: Topic) -> str:
        """Draw a side remark, which may contain words of another topic."""
        other = self.rng.choice(self.phrases.topics)
        if other.id == topic.id:
            return self._pick("backstory")
        return self._pick("unaffected").format(thing=self.rng.choice(other.things))

    def complaint(self, topic: Topic) -> str:
        """Draw a user's turn about the topic."""
        rng = self.rng
        parts = [self._core(topic)]
        if rng.random() < 0.12:
            parts.append(rng.choice((self._core(topic), rng.choice(topic.symptoms))))
        if rng.random() < 0.28:
            parts.insert(0, self._pick("openers"))
        if rng.random() < 0.28:
            parts.append(self._pick("closers"))
        if rng.random() < 0.15:
            parts.append(self._pick("helps"))
        if rng.random() < 0.1:
            parts.insert(rng.choice((0, len(parts))), self._pick("backstory"))
        if rng.random() < 0.05:
            parts.append(self._aside(topic))
        if rng.random() < 0.1:
            parts.insert(rng.choice((0, len(parts))), self._number_clause())
        text = parts[0]
        for part in parts[1:]:
            text += rng.choice((" ", " ", ", ", ". ", " - ")) + part
        return roughen(rng, text, self.phrases.typos)

    def issue_number(self) -> str:
        """Draw an issue number in one of its forms: 48213, #48213 or BUG-771."""
        rng = self.rng
        digits = "".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 3, 3, 4, 4, 5, 5, 6, 7))))
        form = rng.random()
        if form < 0.35:
            return digits
        if form < 0.5:
            return "#" + digits
        prefix = rng.choice(self.phrases.status["prefixes"])
        if rng.random() < 0.4:
            prefix = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 5)))
        if rng.random() < 0.15:
            prefix = rng.choice((prefix.lower(), prefix.title()))
        if rng.random() < 0.15:
            return prefix + digits.zfill(rng.randint(5, 8))
        return prefix + rng.choice(("-", "-", "-", "-", "", "_", "/", " #", " ")) + digits

    def reference(self, number: str) -> str:
        """Draw the number as users write it: alone or as "ticket 48213"."""
        rng = self.rng
        if rng.random() < 0.45:
            return number
        return f"{rng.choice(self.phrases.status['nouns'])} {number}"

    def _status_clause(self, number: str) -> str:
        rng, status, kind = self.rng, self.phrases.status, self.rng.random()
        if kind < 0.15:
            return rng.choice([text for text in status["topical"] if ("{ref}" in text) == bool(number)])
        if kind < 0.55:
            return rng.choice(status["numbered"] if number else status["unnumbered"])
        return self.questions.question(numbered=bool(number))

    def status_question(self, number: str) -> str:
        """Draw a question for the state of `number`, or of an unnamed issue if the number is empty."""
        rng, text = self.rng, self._status_clause(number)
        if rng.random() < 0.18:
            text = f"{self._pick('openers')} {text}"
        if rng.random() < 0.1:
            text = f"{text} {rng.choice(('please', 'thanks', 'thx', 'asap', 'today', 'now', 'by now', 'already'))}"
        if rng.random() < 0.1:
            text = f"{self._pick('backstory')}. {text}"
        if rng.random() < 0.05:
            text = f"{text} {self._number_clause()}"
        return self._as_typed(text, number)

    def status_followup(self) -> str:
        """Draw a question that follows the answer with an issue's state."""
        return self._as_typed(self.questions.followup(), "")

    def _as_typed(self, text: str, number: str) -> str:
        rng = self.rng
        text = roughen(rng, text, self.phrases.typos)
        topic = rng.choice(self.phrases.topics)
        reference = self.reference(number) if number else self.questions.unnamed()
        text = text.replace("{ref}", reference).replace("{thing}", rng.choice(topic.things))
        return text.replace("{utterance}", rng.choice(topic.says))

    def _state_word(self) -> str:
        """Draw a word of a made-up state: a usual word, any word, an invented one, a number or a date."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.3:
            return rng.choice(self.phrases.status["words"])
        if kind < 0.74:
            word = rng.choice(self.vocabulary)
            return word.title() if rng.random() < 0.1 else word
        if kind < 0.88:
            word = pseudo_word(rng)
            return rng.choice((word, word, word.title(), word.upper()))
        number = rng.randint(0, 10 ** rng.randint(1, 4))
        clock, date = f"{number % 24}:{number % 60:02d}", f"{number % 28 + 1}.{number % 12 + 1}."
        return rng.choice((f"{number}", f"{number}%", clock, date, f"v{number}.{number % 7}", f"#{number}"))

    def issue_state(self) -> str:
        """Draw a tracker entry. Half of them are random words, so that only copying helps."""
        rng = self.rng
        if rng.random() < 0.3:
            return rng.choice(self.phrases.status["states"])
        words = [self._state_word() for _ in range(rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)))]
        for i in range(len(words) - 1):
            if rng.random() < 0.1:
                words[i] += rng.choice((",", ",", ";", ":", ".", " -", " /", "'s", ")"))
        if rng.random() < 0.15:
            words[0] = "(" + words[0] if rng.random() < 0.2 else words[0].capitalize()
        return " ".join(words)

    def lookup(self) -> tuple[str, str]:
        """Draw an issue number, which may be empty, and its state in the tracker."""
        chance = self.rng.random()
        if chance < 0.12:
            return "", NO_NUMBER
        return self.issue_number(), NOT_FOUND if chance < 0.24 else self.issue_state()
