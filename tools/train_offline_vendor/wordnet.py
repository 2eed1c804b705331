"""WordNet's nouns, read from its own files: which words name things, and what kinds of things they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Lexicographer files (man 5 lexnames) whose members can be drawn.
THINGS = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 19: "phenomenon", 20: "plant"}
TOPS = 3  # the file of the uppermost kinds, "animal" itself and the like
UPPERMOST = {"person", "animal", "plant", "food"}
WRITING = "written communication"  # books, letters and the like lie under "communication", with their kind
SENSES = 3  # a word's first senses that are looked at: "church" is a group first, a building second
RARE = 2  # a kind counted less often than this in WordNet's tagged texts is a term of science, not a usual word
LEVELS = (0.5, 0.35, 0.25, 0.2, 0.15)  # weight of the first usual kind above a name, of the second, ...

# Kinds that say next to nothing about a thing's looks.
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
        kind: the lexicographer file's name, e.g. ``animal``.
        kinds: usual words for what it is, nearest first, each with its weight below 1.
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
        self._others: dict[str, int] = {}  # how often a word is counted as a verb, an adjective or an adverb
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
        """The form of `word` that stands in the index, a plural reduced; None if it is no noun."""
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
        """What can be drawn of a lemma's `SENSES` first senses; None if nothing can.

        The first such sense gives the kind. Of artifacts the usual words above their other senses as artifacts count
        half: "hammer" is a mechanism first, a tool second. (That a "dog" can be a person must not count.)
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
        """True if `word` is mostly no noun: "double", "pull"."""
        return self._others.get(word, 0) > 3 * self._counts.get(word, 0)

    def _kind(self, offset: int, chain: list[int]) -> str | None:
        """The kind of thing a sense means, None if it cannot be drawn."""
        if self._files[offset] == TOPS:
            return next((word for word in self._words[offset] if word in UPPERMOST), None)
        if any(WRITING in self._words[above] for above in chain):
            return "writing"
        return THINGS.get(self._files[offset])

    def _chain(self, offset: int) -> Iterator[int]:
        """What stands above a sense, by the first pointer of each."""
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
    """The lines of a file but for WordNet's licence, which is indented."""
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith("  "))
