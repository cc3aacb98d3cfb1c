"""Plays conversations between a user and the desk, and turns them into training examples for the three jobs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from training.support_tiny.noise import roughen
from training.support_tiny.phrases import Phrases, SmallTalk, Topic
from training.support_tiny.prompts import (
    HISTORY_MESSAGES,
    NO_NUMBER,
    NOT_FOUND,
    Message,
    classification_messages,
    message,
    status_messages,
    support_messages,
)
from training.support_tiny.wording import Wording

SHARES = {"support": 0.37, "talk": 0.07, "status": 0.28, "route": 0.28}
"""Shares of the kinds of examples: a single complaint, a conversation, a status answer, a route. With far fewer status
answers, the model learns late to copy a number and a state."""


@dataclass
class Example:
    """A chat whose last message is the reply to learn. With `cut`, only the beginning of the reply is present."""

    messages: list[Message]
    cut: bool = False


@dataclass
class Conversation:
    """The messages so far, and what the desk remembers of them."""

    messages: list[Message] = field(default_factory=list)
    topic: Topic | None = None
    given: Counter[str] = field(default_factory=Counter)
    status_told: bool = False

    def say(self, role: str, content: str) -> None:
        """Append a message."""
        self.messages.append(message(role, content))


def status_reply(number: str, state: str) -> str:
    """Return the desk's answer to a status question."""
    if state == NO_NUMBER:
        return "Happy to look that up! Please send me the issue number, so that I can find it."
    if state == NOT_FOUND:
        return f"I looked for {number}, but it is {state}. Please check the number and send it again."
    return f"Here is the latest on {number}: {state}" + ("" if state.endswith((".", "!", "?")) else ".")


def support_reply(topic: Topic, given: int) -> str:
    """Return the desk's advice on a topic, after `given` earlier pieces of advice."""
    if given == 0:
        return f"For {topic.title}: {topic.advice[0]}"
    if given == 1:
        return f"If {topic.title} still troubles you: {topic.advice[1]}"
    if given == 2:
        return f"One more idea for {topic.title}: {topic.advice[2]}"
    return f"For {topic.title}, we had better look together: call the desk and say what you have tried."


class Desk:
    """Plays conversations turn by turn."""

    def __init__(self, phrases: Phrases, rng: Random) -> None:
        self.phrases = phrases
        self.rng = rng
        self.wording = Wording(phrases, rng)

    def _foreign_support(self, topic: Topic) -> str:
        """Draw a reply in another style, because a history may come from another model."""
        if self.rng.random() < 0.5:
            return self.rng.choice(self.phrases.followups["assistant"])
        advice = self.rng.choice(topic.advice)
        return advice[0].upper() + advice[1:]

    def _foreign_status(self, number: str, state: str) -> str:
        if not number:
            return self.rng.choice(self.phrases.status["asks"])
        return self.rng.choice(self.phrases.status["replies"]).format(number=number, status=state)

    def ask_support(self, talk: Conversation) -> str:
        """Play a new or repeated complaint. Remembers the advice and returns the reply."""
        rng, earlier = self.rng, talk.topic
        if earlier and rng.random() < 0.55:
            text = roughen(rng, rng.choice(self.phrases.followups["more"]), self.phrases.typos)
            if rng.random() < 0.12:
                text += " " + self.wording.complaint(earlier)
        else:
            talk.topic = earlier if earlier and rng.random() < 0.08 else rng.choice(self.phrases.topics)
            text = self.wording.complaint(talk.topic)
            if talk.messages and rng.random() < 0.45:
                text = f"{rng.choice(self.phrases.followups['switch'])} {text}"
        topic = talk.topic
        assert topic is not None
        talk.say("user", text)
        talk.given[topic.id] += 1
        return support_reply(topic, talk.given[topic.id] - 1)

    def ask_status(self, talk: Conversation) -> tuple[str, str, str]:
        """Play a status question. Returns the number, its state and the reply."""
        number, state = self.wording.lookup()
        follows = talk.status_told and self.rng.random() < 0.3
        talk.say("user", self.wording.status_followup() if follows else self.wording.status_question(number))
        return number, state, status_reply(number, state)

    def chat(self, talk: Conversation, kind: SmallTalk | None = None) -> str:
        """Play small talk. Returns the reply."""
        kind = kind or self.rng.choice(self.phrases.small_talk)
        text = self.rng.choice(kind.says)
        if self.rng.random() < 0.08:
            text = f"{self.rng.choice(('hi,', 'hey', 'ok', 'well,', 'oh', 'so', 'and', 'hello,'))} {text}"
        talk.say("user", roughen(self.rng, text, self.phrases.typos))
        return kind.reply

    def history(self, turns: int) -> Conversation:
        """Play a conversation of so many turns, the last one answered."""
        talk, rng = Conversation(), self.rng
        for _ in range(turns):
            foreign, kind = rng.random() < 0.35, rng.random()
            talk.status_told = 0.55 <= kind < 0.83
            if kind < 0.55:
                reply = self.ask_support(talk)
                if foreign and talk.topic:
                    reply = self._foreign_support(talk.topic)
            elif kind < 0.83:
                number, state, reply = self.ask_status(talk)
                reply = self._foreign_status(number, state) if foreign else reply
            else:
                reply = self.chat(talk)
            talk.say("assistant", reply)
        return talk


class Examples:
    """An endless, seeded stream of training examples."""

    def __init__(self, phrases: Phrases, seed: int) -> None:
        self.rng = Random(seed)
        self.phrases = phrases
        self.desk = Desk(phrases, self.rng)

    def _turns(self) -> int:
        return self.rng.choice((0, 0, 0, 0, 0, 1, 1, 1, 2, 3))

    def support(self) -> Example:
        """Draw a complaint without history. Most replies are cut after the topic, which is the hard part."""
        talk = Conversation()
        small = self.rng.random() < 0.1
        reply = self.desk.chat(talk) if small else self.desk.ask_support(talk)
        return Example([*support_messages(talk.messages), message("assistant", reply)], cut=self.rng.random() < 0.88)

    def talk(self) -> Example:
        """Draw a support turn at the end of a conversation, mostly a follow-up."""
        talk = self.desk.history(max(1, self._turns()))
        reply = self.desk.chat(talk) if self.rng.random() < 0.12 else self.desk.ask_support(talk)
        cut = self.rng.random() < 0.6
        return Example([*support_messages(talk.messages), message("assistant", reply)], cut)

    def status(self) -> Example:
        """Draw a status turn at the end of a conversation."""
        talk = self.desk.history(self._turns())
        number, state, reply = self.desk.ask_status(talk)
        return Example([*status_messages(talk.messages, number, state), message("assistant", reply)])

    def route(self) -> Example:
        """Draw the route of the last turn of a conversation."""
        talk = self.desk.history(self._turns())
        if self.rng.random() < 0.46:
            route = "status"
            self.desk.ask_status(talk)
        else:
            route = "support"
            self.desk.chat(talk) if self.rng.random() < 0.22 else self.desk.ask_support(talk)
        recent = talk.messages[-HISTORY_MESSAGES:]
        return Example([*classification_messages(recent), message("assistant", route)])

    def stream(self, count: int) -> Iterator[Example]:
        """Yield `count` examples with their kinds in random order."""
        makers = {"support": self.support, "talk": self.talk, "status": self.status, "route": self.route}
        kinds = self.rng.choices(list(SHARES), weights=list(SHARES.values()), k=count)
        return (makers[kind]() for kind in kinds)
