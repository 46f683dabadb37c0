"""Errors a user can mend. Each message is one sentence: what, why, what to do."""

from __future__ import annotations


class UserError(Exception):
    """A mistake outside the program: the command line prints the sentence and exits with `exit_code`."""

    exit_code = 2


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


class DataError(UserError):
    """A dataset, label file, checkpoint or sample that cannot be used; names the file and, if any, the row."""
