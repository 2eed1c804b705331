"""Texts that describe a drawing, with weights, from its file name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tools.train_offline_vendor.wordnet import GENERIC, WordNet

STYLE_WORDS = frozenset(
    "outline outlined fill filled solid bold thin light regular duotone twotone linear line broken sharp rounded round"
    " off alt variant slash negative 16 20 24 28 32 48 px 24px 16px 48px icon icons logo duo tone two bulk stroke"
    " animated remix skin medium dark selector cartoon drawing drawn contour clipart silhouette simple sketch".split()
)
COLOURS = frozenset(
    "red orange yellow green blue purple violet pink brown black white grey gray silver golden cyan teal big small"
    " large little tiny left right up down front back side facing top bottom open closed empty full new old".split()
)
CUTS = frozenset("with in of on at from for and over under behind by to without plus minus into off".split())

# Names of pictures of persons for which WordNet does not state "person".
PERSONS = {
    "user": "person", "users": "person", "account": "person", "bust": "person", "avatar": "person", "people": "person",
    "persons": "person", "family": "person", "couple": "person", "merperson": "person", "pedestrian": "person",
    "stickman": "person", "profile": "person", "human": "person", "guy": "man", "lady": "woman", "female": "woman",
    "male": "man", "kid": "child", "walk": "person", "walking": "person", "run": "person", "running": "person",
    "men": "man", "women": "woman", "hiking": "person", "skiing": "person", "yoga": "person",
}  # fmt: skip
OTHERS = {
    "home": "house", "backhand": "hand", "bike": "bicycle", "moto": "motorcycle", "tv": "television", "smiley": "face",
    "emoji": "face",
    "emoticon": "face", "mic": "microphone", "smartphone": "mobile phone", "hdd": "hard disk",
    "wifi": "router", "mobile": "mobile phone", "cellphone": "mobile phone",
}  # fmt: skip
# Words whose first drawable sense is not their meaning in icons, and words of user interfaces.
SKIP = frozenset(
    "i o a b c d e f g h s v x y z en em an as at be he in it us am id no ok go app apps os ai pa ma hi add arrow"
    " arrows badge bar base bit block board border box bracket case cell center chart check circle clip close code"
    " column"
    " control corner cross cursor cut database data delete diamond dot download edit edge element end exit expand"
    " export field figure file filter flow format frame graph grid group heading hub letter letters"
    " japanese chinese korean arrival departure indicator input insert inset"
    " join key label layer layout level link list lock log logic login loop mark mask mode move nav net network node"
    " note number object opening option order output page panel part pass paste path pattern pause pin pixel place"
    " plane-mode play player plot plug point pointer port position post power program project prompt query quote rank"
    " rate record rect rectangle reload repeat reset resize return roll root rotate row save scale scan screen script"
    " scroll section segment select selection server set share shape side sign signal size slot slide sort source"
    " space spot square stack star-half start state status step stop storage stream support switch symbol sync system"
    " tab table tag target template term test text tick time title toggle token tool tools track trash triangle turn"
    " type underline update upload value variable version view volume wave web widget window zone zoom dash body unit"
    " face-id touch-id logo brand button social head-side circle-user square-user".split()
)


@dataclass(frozen=True)
class Description:
    """Content of a drawing.

    Attributes:
        name: its name, e.g. ``police car``.
        kind: its lexicographer file, e.g. ``artifact``.
        texts: texts that describe it, with weights; the name is the first one and has weight 1.
    """

    name: str
    kind: str
    texts: dict[str, float]


def words(raw: str) -> list[str]:
    """Split a file name into words, without digits and words of style."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", raw)
    parts = re.split(r"[^A-Za-z]+", spaced.lower())
    return [part for part in parts if part and part not in STYLE_WORDS]


def base(raw: str) -> str:
    """Return the part of a name that the variants of a drawing share: its words and numbers without those of style."""
    parts = re.split(r"[^A-Za-z0-9]+", raw.lower())
    return "-".join(part for part in parts if part and part not in STYLE_WORDS and not re.fullmatch(r"\d\dpx|px", part))


def _candidates(parts: list[str], heads_first: bool) -> Iterable[str]:
    """Yield phrases that may name a drawing: all words, the last ones, the first ones; without those after "with".

    With `heads_first`, the first words precede the last ones, and single words follow.
    """
    cut = next((i for i, part in enumerate(parts) if i and part in CUTS), len(parts))
    for group in (parts, parts[:cut]):
        yield " ".join(group)
    plain = [part for part in parts[:cut] if part not in COLOURS] or parts[:cut]
    yield " ".join(plain)
    last = [" ".join(plain[start:]) for start in range(1, len(plain))]
    first = [" ".join(plain[:end]) for end in range(len(plain) - 1, 0, -1)]
    yield from [*first, *plain] if heads_first else [*last, *first]


def describe(
    raw: str, wordnet: WordNet, extra: Iterable[tuple[str, float]] = (), heads_first: bool = False
) -> Description | None:
    """Describe a drawing by its name; return None if the name does not denote a drawable thing.

    Args:
        raw: its name in the icon set, e.g. ``police-car-light-outline``.
        wordnet: the nouns.
        extra: further texts with lower weights (categories, keywords); texts that do not denote a thing are ignored.
        heads_first: whether the name begins with the thing and may end with an author, as in clip art.
    """
    parts = words(raw)
    if not parts or len(parts) > 8:
        return None
    found = next((hit for hit in (_look_up(text, wordnet) for text in _candidates(parts, heads_first)) if hit), None)
    if found is None:
        return None
    name, kind = _of_whose_head(parts, found, wordnet)
    texts = {name: 1.0}
    more: list[tuple[str, float]] = []
    for part in parts:  # "woman farmer" shows a woman too
        hit = _look_up(part, wordnet)
        if hit and hit[1] == "person":
            more.append((hit[0], 0.5))
    meaning = wordnet.meaning(name)
    more += list(meaning.kinds) if meaning else []
    if kind == "person":
        more.append(("person", 0.7))
    for text, weight in extra:
        lemma = wordnet.lemma(text)
        if lemma and lemma not in GENERIC and wordnet.meaning(lemma):
            more.append((lemma, weight))
    for text, weight in more:
        texts[text] = max(weight, texts.get(text, 0.0))
    return Description(name, kind, texts)


def _of_whose_head(parts: list[str], found: tuple[str, str], wordnet: WordNet) -> tuple[str, str]:
    """Return the animal or person whose face or head a drawing shows: a "horse face" shows a horse."""
    if found[0] in ("face", "head") and parts[-1] in ("face", "head") and len(parts) > 1:
        owner = _look_up(" ".join(parts[:-1]), wordnet)
        if owner and owner[1] in ("animal", "person"):
            return owner
    return found


def _look_up(text: str, wordnet: WordNet) -> tuple[str, str] | None:
    """Return the lemma and kind of a phrase that denotes a drawable thing."""
    if not text or text in SKIP or len(text) < 3:
        return None
    text = PERSONS.get(text, OTHERS.get(text, text))
    lemma = wordnet.lemma(text)
    if lemma is None or lemma in SKIP or len(lemma) < 3:
        return None
    meaning = wordnet.meaning(lemma)
    if meaning is None or (meaning.kind not in ("animal", "plant", "food", "person", "body") and wordnet.bare(lemma)):
        return None
    return lemma, meaning.kind
