"""Errors the user can fix. Each message is one sentence: thing, reason, remedy."""

from __future__ import annotations


class UserError(Exception):
    """A problem outside the program: the command line prints the sentence and exits with `exit_code`."""

    exit_code = 2

    def __str__(self) -> str:
        """The sentence on one line, safe for a terminal: names from outside may hold line ends, escapes and worse."""
        return printable(super().__str__())


class ConfigError(UserError):
    """A flag, task or setting that cannot be used."""


class InstallError(UserError):
    """A package that is missing or does not load."""


class SourceError(UserError):
    """A camera, microphone, EDA sensor or recording that cannot be opened or read."""


class BundleError(UserError):
    """A bundle that is missing, incomplete, altered or of an unknown schema."""


class BackendError(UserError):
    """An inference backend that this machine cannot run, or that failed to build or load a network."""


class OutputError(UserError):
    """Results that cannot be written."""


class DataError(UserError):
    """A dataset, label file, checkpoint or sample that cannot be used; names the file and, if any, the row."""


def printable(text: str) -> str:
    """`text` with every character that is not printable written as in Python's source (`\\n`, `\\x1b`, `\\u202e`); tabs
    stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def short(error: BaseException, most: int = 200) -> str:
    """An error's whole message on one line, at most `most` characters, to quote as the reason."""
    return " ".join(str(error).split())[:most]
