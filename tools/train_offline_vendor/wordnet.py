"""The nouns of WordNet, read from its files: words that denote things, and their kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Lexicographer files (man 5 lexnames) whose members can be drawn.
THINGS = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 19: "phenomenon", 20: "plant"}
TOPS = 3  # the file of the uppermost kinds, such as "animal"
UPPERMOST = {"person", "animal", "plant", "food"}
WRITING = "written communication"  # books and letters are kinds of "communication"
SENSES = 3  # number of senses that are considered: "church" is first a group, then a building
RARE = 2  # a kind with a lower count in the tagged texts of WordNet is a technical term
LEVELS = (0.5, 0.35, 0.25, 0.2, 0.15)  # weight of the first usual kind above a name, of the second, ...

# Kinds that hardly describe the appearance of a thing.
GENERIC = frozenset(
    "entity,physical entity,abstraction,abstract entity,object,physical object,whole,unit,artifact,artefact,matter,"
    "substance,thing,causal agent,cause,causal agency,living thing,animate thing,organism,being,part,portion,"
    "instrumentality,instrumentation,way,creation,product,process,physical process,unit of measurement,group,"
    "grouping,relation,attribute,content,message,communication,social group,location,region,area,piece,material,"
    "stuff,commodity,trade good,good,article,surface,structure,construction,natural object,body,covering,event,"
    "psychological feature,state,form,shape,natural phenomenon,phenomenon,property,line,point,position,place".split(",")
)


@dataclass(frozen=True)
class Meaning:
    """One sense of a word.

    Attributes:
        kind: name of the lexicographer file, e.g. ``animal``.
        kinds: common hypernyms, the nearest first, each with a weight below 1.
    """

    kind: str
    kinds: tuple[tuple[str, float], ...]


class WordNet:
    """The nouns of a WordNet 3.0 folder (``index.noun``, ``data.noun``, ``noun.exc``, ``cntlist.rev``)."""

    def __init__(self, folder: Path) -> None:
        self._senses: dict[str, list[int]] = {}
        for line in _lines(folder / "index.noun"):
            parts = line.split()
            count = int(parts[2])
            self._senses[parts[0].replace("_", " ")] = [int(offset) for offset in parts[-count:]]
        self._words: dict[int, list[str]] = {}
        self._files: dict[int, int] = {}
        self._above: dict[int, list[int]] = {}
        for line in _lines(folder / "data.noun"):
            self._read(line.split("|")[0].split())
        self._plural = dict(line.split()[:2] for line in _lines(folder / "noun.exc"))
        self._counts: dict[str, int] = {}
        self._others: dict[str, int] = {}  # count of a word as verb, adjective or adverb
        for line in _lines(folder / "cntlist.rev"):
            key, _, count_text = line.split()
            word, _, rest = key.partition("%")
            name, counts = word.replace("_", " "), self._counts if rest.startswith("1") else self._others
            counts[name] = counts.get(name, 0) + int(count_text)

    def _read(self, parts: list[str]) -> None:
        offset, count = int(parts[0]), int(parts[3], 16)
        self._files[offset] = int(parts[1])
        self._words[offset] = [parts[4 + 2 * i].replace("_", " ").lower() for i in range(count)]
        pointers = parts[5 + 2 * count :]
        self._above[offset] = [int(pointers[i + 1]) for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]

    def lemma(self, word: str) -> str | None:
        """Return the form of a word in the index, the singular for a plural; None if it is not a noun."""
        if word in self._senses:
            return word
        if word in self._plural:
            return self._plural[word].replace("_", " ")
        for ending, instead in (("ies", "y"), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("s", "")):
            if word.endswith(ending) and len(word) > len(ending) + 2 and word[: -len(ending)] + instead in self._senses:
                return word[: -len(ending)] + instead
        return None

    @lru_cache(maxsize=100_000)  # noqa: B019 - one WordNet lives as long as the program
    def meaning(self, lemma: str) -> Meaning | None:
        """Return the drawable meaning of a lemma among its first `SENSES` senses; None if it has none.

        The first such sense determines the kind. For artifacts, the hypernyms of further senses as artifacts have half
        the weight: "hammer" is first a mechanism, then a tool. Other kinds do not count: a "dog" can be a person.
        """
        kind, kinds = None, dict[str, float]()
        for offset in self._senses.get(lemma, [])[:SENSES]:
            chain = list(self._chain(offset))
            found = self._kind(offset, chain)
            if found is None or (kind is not None and {kind, found} != {"artifact"}):
                continue
            for word, weight in self._kinds(lemma, chain):
                kinds.setdefault(word, weight if kind is None else weight / 2)
            kind = kind or found
        return None if kind is None else Meaning(kind, tuple(kinds.items()))

    def bare(self, word: str) -> bool:
        """Return whether a word is mostly not a noun, such as "double" or "pull"."""
        return self._others.get(word, 0) > 3 * self._counts.get(word, 0)

    def _kind(self, offset: int, chain: list[int]) -> str | None:
        """Return the kind of a sense; None if it cannot be drawn."""
        if self._files[offset] == TOPS:
            return next((word for word in self._words[offset] if word in UPPERMOST), None)
        if any(WRITING in self._words[above] for above in chain):
            return "writing"
        return THINGS.get(self._files[offset])

    def _chain(self, offset: int) -> Iterator[int]:
        """Yield the hypernyms of a sense, by the first pointer of each."""
        above = self._above[offset]
        while above:
            yield above[0]
            above = self._above[above[0]]

    def _kinds(self, lemma: str, chain: list[int]) -> tuple[tuple[str, float], ...]:
        usual = []
        for offset in chain:
            word = max(self._words[offset], key=lambda name: self._counts.get(name, 0))
            if self._counts.get(word, 0) >= RARE and not GENERIC & set(self._words[offset]) and word != lemma:
                usual.append(word)
        return tuple(zip(usual, LEVELS, strict=False))


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file without the licence, which is indented."""
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith("  "))
