"""Makes clean phrases look typed by people: typos, missing words, odd case and punctuation."""

from random import Random

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
CONSONANTS = "bcdfghjklmnprstvwz"
ENDINGS = ("", "", "", "!", "!!", "?", "??", ".", ".", "...", " :(", " ?", " !")


def pseudo_word(rng: Random) -> str:
    """Invent a word such as "tomuva". Such words stand for all words that are missing from the training data."""
    word = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3)))
    return word + (rng.choice(CONSONANTS) if rng.random() < 0.5 else "")


def _mistype(rng: Random, word: str) -> str:
    """Make one typing error: swap, drop, double or replace a letter."""
    if len(word) < 3:
        return word
    i = rng.randrange(len(word) - 1)
    slip = rng.randrange(4)
    if slip == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if slip == 1:
        return word[: i + 1] + word[i + 2 :]
    if slip == 2:
        return word[: i + 1] + word[i] + word[i + 1 :]
    return word[: i + 1] + rng.choice(LETTERS) + word[i + 2 :]


def _words(rng: Random, words: list[str], typos: dict[str, list[str]], strength: float) -> list[str]:
    """Substitute, mistype, drop and insert words. Placeholders, which contain a brace, stay."""
    result: list[str] = []
    for word in words:
        chance = rng.random() / strength
        if "{" in word:
            result.append(word)
        elif word.lower() in typos and chance < 0.12:
            result.append(rng.choice(typos[word.lower()]))
        elif chance < 0.045:
            result.append(_mistype(rng, word))
        elif chance > 1 / strength - 0.03 and len(words) > 6:
            continue
        else:
            result.append(word)
        if rng.random() < 0.012 * strength:
            result.append(pseudo_word(rng))
    return [word for word in result if word]


def _case(rng: Random, text: str) -> str:
    style = rng.random()
    if style < 0.5:
        return text
    if style < 0.92:
        return text[:1].upper() + text[1:]
    if "{" in text:
        return text
    return text.title() if style < 0.95 else text.upper()


def roughen(rng: Random, text: str, typos: dict[str, list[str]]) -> str:
    """Rewrite the phrase as one random person would type it."""
    strength = rng.choice((0.1, 0.5, 1.0, 1.0, 2.0))
    words = _words(rng, text.split(), typos, strength)
    if rng.random() < 0.02:
        rng.shuffle(words)
    text = " ".join(words)
    if rng.random() < 0.25:
        text = text.replace(",", "").replace("'", "").replace(".", "")
    return _case(rng, text) + rng.choice(ENDINGS)
