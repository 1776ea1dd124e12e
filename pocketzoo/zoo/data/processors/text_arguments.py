"""Whether an argument of the command line is a text or the name of a file."""

from __future__ import annotations

import errno
import re
import stat
from pathlib import Path

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.reading.documents import MalformedError, read_bytes
from pocketzoo.zoo.data.processors.encoded_text import text_of

# What a text hardly looks like: one word with a slash in it or a suffix at its end, or several that end as files of
# texts and data do.
WORD = re.compile(r"(?:\S*[/\\]\S*|~\S*|\S*[\w*)\]]\.\w{1,10})(?:\?\S*)?")
FILE = re.compile(
    r".*[\w*)\]]\.(?:txt|text|md|rst|csv|tsv|jsonl?|ndjson|parquet|npz|npy|html?|xml|pdf|docx?|xlsx?|log|png|jpe?g|webp|gz|zip)"
    r"(?:\?\S*)?",
    re.IGNORECASE,
)
FORCE = "check the path; a text that looks like a file is given with --row"


def text_or_file(argument: str | Path) -> str | Path:
    """The text itself, or the path of a file that is there and can be read.

    Raises:
        DataError: it is a folder, a file that cannot be read, or looks like the name of one that is not there.
    """
    if isinstance(argument, str) and not argument.strip():
        raise DataError(f"{argument!r} is an empty text", "give some words, or a file of them")
    if isinstance(argument, str) and "\n" in argument:
        return argument
    path = Path(argument)
    try:
        mode = path.stat().st_mode
    except ValueError:  # with a zero inside: a text
        return str(argument)
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            raise DataError(f"{argument} is a link to nowhere", FORCE) from error
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise DataError(f"cannot read {argument}: {message_of(error)}", FORCE) from error
        if isinstance(argument, Path) or looks_like_file(argument):
            raise DataError(f"there is no file {argument}", FORCE) from error
        return argument
    if stat.S_ISDIR(mode):
        raise DataError(f"{argument} is a folder, and neither a text nor a file of one", "name the files in it")
    try:
        if not stat.S_ISREG(mode):
            return text_of(read_bytes(path), str(path))  # a pipe can be read once
        with path.open("rb"):
            return path
    except (OSError, MalformedError) as error:
        raise DataError(f"cannot read {argument}: {message_of(error)}", FORCE) from error


def looks_like_file(argument: str) -> bool:
    """Whether it is rather the name of a file than a text."""
    if len(argument) > 255:
        return False
    argument = argument.strip()
    folder = Path(argument).parent  # "reviews/my file": in a folder that is there
    inside = "/" in argument and folder != Path() and folder.is_dir()
    return inside or WORD.fullmatch(argument) is not None or FILE.fullmatch(argument) is not None
