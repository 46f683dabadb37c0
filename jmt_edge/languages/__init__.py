"""What a person reads, in the language of the person. Machines are spoken to in English.

An English sentence is its own key; `XX.json` has it in another language. Its `text` holds the sentences that are given
to `tr` and `trn` here and in the pages' JavaScript, and the texts of the pages. Its `said` holds sentences that come
from elsewhere in the program, such as the reasons of a verdict: `translated` looks them up, also with values in the
`{places}`. `n`, `n2`, ... are numbers there, `each` is a list with semicolons, `list` one with commas, `text`
what a person wrote.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError

LANGUAGES = ("en", "de")
LONGEST = 600  # characters of a sentence that is compared with templates
_PLACE = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"[-−+]?(?:[\d.:]+|…) ?%?")  # the report writes … where a number changes
_ENGLISH: dict[str, Any] = {"decimal": ".", "percent": "%", "text": {}, "said": {}}


class Language:
    """One language, of `LANGUAGES`. code: as in HTML's `lang`."""

    def __init__(self, code: str) -> None:
        catalogue = _ENGLISH if code == "en" else json.loads(catalogue_of(code))
        self.code = code
        self._text: dict[str, str] = catalogue["text"]
        self._said: dict[str, str] = catalogue["said"]
        self._decimal, self._percent = catalogue["decimal"], catalogue["percent"]
        templates = [_Template(sentence, other) for sentence, other in self._said.items() if "{" in sentence]
        self._templates = sorted(templates, key=lambda one: -one.weight)

    def tr(self, sentence: str, **values: object) -> str:
        """The sentence, a literal, with `values` in its {places}."""
        return _filled(self._text.get(sentence, sentence), values)

    def trn(self, one: str, other: str, n: int, **values: object) -> str:
        """As `tr`, of the form for `n` things, which are {n} in it."""
        return self.tr(one if n == 1 else other, n=n, **values)

    def translated(self, sentence: str) -> str:
        """A sentence that the program said in English; one that the catalogue does not have stays as it is."""
        if not self._said or not sentence or len(sentence) > LONGEST:
            return sentence
        if (exact := self._said.get(sentence)) is not None:
            return exact
        for template in self._templates:
            if match := template.pattern.fullmatch(sentence):
                return _filled(template.other, {n: self._part(n, t) for n, t in match.groupdict().items()})
        return sentence

    def _part(self, name: str, text: str) -> str:
        if name == "text":  # what a person wrote
            return text
        if _NUMBER.fullmatch(text):
            return self.local(text)
        if name == "each":
            return "; ".join(map(self.translated, text.split("; ")))
        if name == "list":
            return ", ".join(map(self.translated, re.split(r", (?![^(]*\))", text)))
        return self.translated(text)

    def local(self, number: str) -> str:
        """A number as English writes it, as `1.5` or `70%`, as this language does."""
        return re.sub(r" ?%$", self._percent, re.sub(r"(?<=\d)\.(?=\d)", self._decimal, number))


class _Template:
    """A sentence with {places}. weight: how much of it is fixed."""

    def __init__(self, sentence: str, other: str) -> None:
        self.other = other
        parts = _PLACE.split(sentence)
        self.weight = sum(map(len, parts[::2]))
        places = [f"(?P<{n}>{_NUMBER.pattern if re.fullmatch('n[0-9]?', n) else '.+?'})" for n in parts[1::2]]
        fixed = [re.escape(part) for part in parts[::2]]
        self.pattern = re.compile("".join(a + b for a, b in zip(fixed, [*places, ""], strict=True)))


def _filled(sentence: str, values: Mapping[str, object]) -> str:
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), sentence)


@cache
def language(code: str) -> Language:
    """Raises ConfigError for a language that there is no catalogue of."""
    if code not in LANGUAGES:
        raise ConfigError(f"there is no language '{code[:20]}'; choose {' or '.join(LANGUAGES)}")
    return Language(code)


def of_environment(environment: Mapping[str, str] = os.environ) -> str:
    """The language of the user's locale, where there is one of it: LC_ALL, LC_MESSAGES or LANG; else English."""
    told = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environment.get(name))), "")
    return code if (code := told[:2].lower()) in LANGUAGES and told[2:3] in ("", "_", ".", "@") else "en"


def catalogue_of(code: str) -> bytes:
    """The catalogue of a language but English, as JSON."""
    return (Path(__file__).parent / f"{code}.json").read_bytes()
