"""What a run of a recipe notes in its folder: which sections have begun, which are finished, and on what."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from pocketzoo.core.errors import BundleError, message_of
from pocketzoo.core.files import collect_temporaries, put_folder, replacing_file, replacing_folder
from pocketzoo.core.names import check_folder_name
from pocketzoo.core.reading.documents import MalformedError, read_json

STATE = "run.json"
BEGUN = "begun "


class RunState:
    """The sections of a run that writes ``out``, each with the key of what it was asked for, and on what."""

    def __init__(self, out: Path) -> None:
        """Read it, and remove what was left there by a run that was killed.

        Raises:
            BundleError: something else is at ``out``, or its state is damaged.
        """
        self.out = out
        check_folder_name(out, "a run")
        collect_temporaries(out)
        if out.exists() and not (out / STATE).is_file() and (not out.is_dir() or any(out.iterdir())):
            raise BundleError(f"{out} exists and was not written by a recipe run", "choose another place with -o")
        self.sections = _read(out / STATE)

    def has_begun(self, section: str, key: str) -> bool:
        """Whether the section was begun for this, and what lies in its place is its own."""
        return self.sections.get(BEGUN + section) == key

    def has_finished(self, section: str, key: str) -> bool:
        """Whether the section was finished for this."""
        return self.sections.get(section) == key

    def begin(self, section: str, key: str) -> None:
        """Note that a section begins, for what is to continue with it after a kill.

        What was finished there is not the same any more once a new one lies in its place, noted or not.
        """
        self.sections.pop(section, None)
        self.sections[BEGUN + section] = key
        self.write()

    def finish(self, section: str, key: str) -> None:
        """Note that a section is finished."""
        self.sections[section] = key
        self.write()

    def write(self) -> None:
        """Write it, whole or not at all; the folder appears as one of a run, and is never anything else."""
        text = json.dumps(self.sections)
        if not self.out.exists():
            with replacing_folder(self.out, partial(put_folder, replace=False)) as folder:
                (folder / STATE).write_text(text)
            return
        with replacing_file(self.out / STATE) as temporary:
            temporary.write_text(text)


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        state = read_json(path)
        if isinstance(state, dict) and all(isinstance(value, str) for value in state.values()):
            return state
        reason = "it is not a table of texts"
    except MalformedError as error:
        reason = message_of(error)
    raise BundleError(f"{path} is damaged: {reason}", "give another -o, or remove it to begin anew with --force")
