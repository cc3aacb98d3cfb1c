"""Reads the phrase files: `topics/*.yaml` with an entry for each topic, and `phrases/*.yaml` for all topics.

A topic has these keys:
- `title`: the topic's name in replies, which contains the phrase `about`
- `advice`: three pieces, given one after the other while the user keeps asking
- `things` and `symptoms`: any symptom may follow any thing
- `keywords`: each identifies the topic
- `says`: whole complaints
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Topic:
    """An IT problem with its users' phrases and the desk's advice."""

    id: str
    about: str
    title: str
    advice: list[str]
    things: list[str]
    symptoms: list[str]
    keywords: list[str]
    says: list[str]


@dataclass(frozen=True)
class SmallTalk:
    """A kind of turn that needs no advice, with its only reply."""

    id: str
    reply: str
    says: list[str]


@dataclass(frozen=True)
class Phrases:
    """All phrases from which dialogues are made."""

    topics: list[Topic]
    small_talk: list[SmallTalk]
    status: dict[str, list[str]]
    questions: dict[str, list[str]]
    slots: dict[str, list[str]]
    followups: dict[str, list[str]]
    frames: dict[str, list[str]]
    typos: dict[str, list[str]]

    @property
    def vocabulary(self) -> list[str]:
        """Return every word of all phrases once, so that rare words are drawn as often as common ones."""
        texts = [
            text
            for group in (self.status, self.questions, self.slots, self.followups, self.frames)
            for texts in group.values()
            for text in texts
        ]
        texts += [text for kind in self.small_talk for text in [kind.reply, *kind.says]]
        for topic in self.topics:
            texts += [*topic.advice, *topic.things, *topic.symptoms, *topic.keywords, *topic.says]
        words = {word.strip(".,:;!?()\"'") for text in texts for word in text.split() if "{" not in word}
        return sorted(word for word in words if word)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _topic(about: str, topic_id: str, entry: dict[str, Any]) -> Topic:
    return Topic(
        id=topic_id,
        about=about,
        title=entry["title"],
        advice=entry["advice"],
        things=_parts(entry["things"]),
        symptoms=_parts(entry["symptoms"]),
        keywords=_parts(entry["keywords"]),
        says=_lines(entry["says"]),
    )


def _check_advice(topics: Iterable[Topic]) -> None:
    """Check that each reply names its own topic and no other. The evaluation relies on it."""
    topics = list(topics)
    for topic in topics:
        if topic.about.lower() not in topic.title.lower():
            raise ValueError(f"{topic.id}: the title lacks the phrase {topic.about!r}")
        for other in topics:
            named = [text for text in (topic.title, *topic.advice) if other.about.lower() in text.lower()]
            if other.id != topic.id and named:
                raise ValueError(f"{topic.id}: {named[0]!r} names the topic {other.id}")


def load_phrases() -> Phrases:
    """Load and check all phrases."""
    entries: dict[str, Any] = {}
    for path in sorted((HERE / "topics").glob("*.yaml")):
        entries |= _read(path)
    names = json.loads((HERE / "topics.json").read_text(encoding="utf-8"))
    topics = [_topic(name["about"], name["id"], entries[name["id"]]) for name in names]
    _check_advice(topics)
    small_talk = _read(HERE / "phrases" / "smalltalk.yaml")
    status = _read(HERE / "phrases" / "status.yaml")
    questions = _read(HERE / "phrases" / "questions.yaml")
    slots = questions.pop("slots")
    frames = _read(HERE / "phrases" / "frames.yaml")
    followups = {key: _lines(text) for key, text in _read(HERE / "phrases" / "followups.yaml").items()}
    typos = frames.pop("typos")
    slots["did"] = frames.pop("did")
    lists = {"nouns": _parts(status.pop("nouns")), "prefixes": _parts(status.pop("prefixes"))}
    lists |= {"words": status.pop("words").split()}
    return Phrases(
        topics=topics,
        small_talk=[SmallTalk(key, kind["reply"], _lines(kind["says"])) for key, kind in small_talk.items()],
        status=lists | {key: _lines(text) for key, text in status.items()},
        questions={key: _lines(text) for key, text in questions.items()},
        slots={key: _parts(text) for key, text in slots.items()},
        followups=followups,
        frames={key: _lines(text) for key, text in frames.items()},
        typos=typos,
    )
