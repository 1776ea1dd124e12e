"""Everything pocketzoo raises on purpose: one family, each with a message (what) and a hint (what next).

The command line prints the two as two lines and exits with ``exit_code``; ``str`` gives the two lines as well, so what
quotes an error takes ``message_of``. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

R = TypeVar("R")


class PocketzooError(Exception):
    """Base of the family. ``message`` says what was wrong with the value in it, ``hint`` what to do next."""

    exit_code = 1  # of the command line: it cannot be done

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:  # a traceback shows both; KeyError would print the message in quotes
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UnknownNameError(PocketzooError, KeyError):
    """A name that nothing is registered under."""


class MissingPluginError(UnknownNameError):
    """A bundle needs what a plugin brings that is not installed here, or not in that version."""


class DuplicateNameError(PocketzooError):
    """One name declared by two plugins."""

    plugin = ""  # the one that came second


class PluginError(PocketzooError):
    """A plugin that cannot be used: it does not import, or declares something that is not a spec."""


class MissingDependencyError(PocketzooError, ImportError):
    """A package that an extra brings is not installed."""


class RecipeError(PocketzooError, ValueError):
    """A recipe or config with an unknown field or a value out of range."""


class DataError(PocketzooError, ValueError):
    """A data set that cannot be read or does not fit the model."""


class BundleError(PocketzooError):
    """A bundle on disk that is missing, damaged, or newer than this version."""


class BusyError(PocketzooError):
    """Another process is at the same work."""


class HeadMismatchError(PocketzooError, ValueError):
    """A head that cannot read the features a backbone gives."""


class BadReferenceError(PocketzooError, ValueError):
    """A reference to a model that cannot be read."""


class HubError(PocketzooError, OSError):
    """The Hub did not give what was asked for. The types below say why."""


class HubMissingError(HubError):
    """No such repository, revision or file; a private repository looks the same from outside."""


class HubRenamedError(HubError):
    """The repository has another name now."""


class HubAccessError(HubError):
    """A gated repository, or a token that is not accepted."""


class HubRateLimitError(HubError):
    """Too many requests."""


class HubConnectionError(HubError):
    """No connection, or no progress within the deadline; also what is not stored when working offline."""


class HubIntegrityError(HubError):
    """Bytes, a commit or a digest that are not what was pinned or announced."""


class UnsafeFileError(PocketzooError):
    """A file that could run code when it is loaded, whatever it is called."""


class TooLargeError(PocketzooError):
    """More of something that comes from elsewhere than is taken unless told so; see ``core.untrusted.limits``."""


class SignatureError(PocketzooError):
    """A bundle that is not signed, or not by whom it should be; or a key that cannot be used."""


class UnsupportedModelError(PocketzooError):
    """A repository that no registered plugin can load."""


class LicenseError(PocketzooError):
    """A model that may not be passed on, or nobody knows whether it may."""


class LockError(PocketzooError):
    """zoo.lock is missing, damaged, or differs from what it is held against."""


class RejectedError(PocketzooError):
    """What was asked for was made, and is worse than it may be: nothing of it is shipped."""

    exit_code = 3


class UnsupportedLayerError(PocketzooError):
    """A layer or operator that the step or the target cannot handle."""


class TrainingError(PocketzooError):
    """Training that cannot go on here; what was learned so far is kept."""


class ProcessLostError(TrainingError):
    """Another of the processes that train together ended."""


class MemoryShortError(PocketzooError, MemoryError):
    """Memory, the host's or the device's, that a model or a batch would take and that is not there."""


class ExportError(PocketzooError):
    """A graph or engine that could not be made."""


class ExportMismatchError(ExportError):
    """An exported graph whose outputs differ from the module's."""


class StorageError(PocketzooError, OSError):
    """The disk refused: no space left, no permission, a read-only file system."""


def message_of(error: BaseException) -> str:
    """What was wrong, to be quoted in another error's message: an error of this family leaves its hint out."""
    return error.message if isinstance(error, PocketzooError) else str(error)


def in_a_line(error: BaseException) -> str:
    """An error that is none of ours, such as of a plugin's code, to be quoted: its type and what it says, in a line."""
    return " ".join(f"{type(error).__name__}: {message_of(error)}".split())


def guarded(owner: str, function: Callable[..., R], *arguments: Any, **keywords: Any) -> R:
    """What a function of a plugin returns.

    Raises:
        PluginError: it failed in a way that is no error of ours, or asked to exit: its message says whose it is.
    """
    try:
        return function(*arguments, **keywords)
    except (PocketzooError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{owner} failed: {in_a_line(error)}",
            "tell whoever made it; pocketzoo plugins lists who that is",
        ) from error


def check_field(config: object, field: str, ok: bool, rule: str) -> None:
    """Refuse a config whose field breaks its rule.

    Raises:
        RecipeError: ``ok`` is false.
    """
    if not ok:
        name = f"{type(config).__name__}.{field}"
        raise RecipeError(f"{name} cannot be {getattr(config, field)!r}", f"{field} must be {rule}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the closest known one, or all of them when none is close and they are few."""
    from difflib import get_close_matches  # list, which makes no mistakes, starts a hundredth sooner without it

    names = sorted(set(known))
    if close := get_close_matches(name, names, n=1):
        return f"did you mean {close[0]!r}?"
    if not names:
        return "nothing is registered here"
    return "known: " + ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
