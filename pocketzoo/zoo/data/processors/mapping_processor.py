"""The processor of samples of several things: each field by a processor of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, RecipeError, nearest
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.data.processors.base import ProcessorBase, called


class MappingProcessor(ProcessorBase):
    """Mappings of field -> what its processor reads; the inputs are those of all of them, in their order."""

    def __init__(self, parts: Mapping[str, Processor]) -> None:
        self.parts, self.fields = parts, tuple(parts)
        self.inputs = tuple(tensor for part in parts.values() for tensor in part.inputs)
        names = [tensor.name for tensor in self.inputs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RecipeError(f"two fields make the input {min(twice)!r}", "give each processor another name for it")
        free = [part.lengths for part in parts.values() if part.lengths is not None]
        self.lengths = (max(least for least, _ in free), min(most for _, most in free)) if free else None
        self.images = tuple(part.image for part in parts.values() if part.image is not None)
        taken = [getattr(part, "taken", {}) for part in parts.values()]
        self.taken = {name: length for each in taken for name, length in each.items()}
        self.image = next(iter(self.images), None)
        self.text = next((part.text for part in parts.values() if part.text is not None), None)
        self.wants = f"give mappings with {' and '.join(parts)}"

    def __call__(self, samples: Sequence[Any]) -> Arrays:
        for sample in samples:
            self._check_fields(sample)
        ready = [self.is_ready(sample) for sample in samples]
        if ready and all(ready):
            return super().__call__(samples)
        if any(ready):
            raise DataError("some samples of the batch are arrays that are ready, and some are not", self.wants)
        arrays: dict[str, Any] = {}
        for name, part in self.parts.items():
            try:
                arrays.update(part([sample[name] for sample in samples]))
            except DataError as error:
                raise DataError(f"{name}: {error.message}", error.hint) from error
        return arrays

    def _check_fields(self, sample: Any) -> None:
        if not isinstance(sample, Mapping):
            raise DataError(f"a sample cannot be {called(sample)}", self.wants)
        if self.is_ready(sample):
            return
        if unknown := [name for name in sample if name not in self.parts]:
            raise DataError(f"the model reads no field {unknown[0]!r}", nearest(str(unknown[0]), self.parts))
        if missing := [name for name in self.parts if name not in sample]:
            raise DataError(f"a sample lacks its {missing[0]!r}", self.wants)

    def is_ready(self, sample: Any) -> bool:
        """See ``ProcessorBase``: where fields are called as inputs are, it is samples of those unless types fit."""
        if not super().is_ready(sample):
            return False
        return all(
            (sample[t.name].ndim, sample[t.name].dtype) == (len(t.sample_shape), np.dtype(t.dtype)) for t in self.inputs
        )

    def arrays(self, given: Any) -> Arrays | None:
        ready = super().arrays(given)
        if ready is None or not all(t.name in ready and ready[t.name].dtype == t.dtype for t in self.inputs):
            return None
        return ready

    def check_values(self, arrays: Arrays) -> None:
        """See ``ProcessorBase``: each field's processor checks its own. Of arrays that are ready nothing is missing."""
        super().check_values(arrays)
        for part in self.parts.values():
            part.batch({tensor.name: arrays[tensor.name] for tensor in part.inputs})

    def random(self, count: int, length: int = 0) -> Arrays:
        return {name: x for part in self.parts.values() for name, x in part.random(count, length).items()}

    def truncated(self, samples: Sequence[Any]) -> int:
        mappings = [sample for sample in samples if isinstance(sample, Mapping)]
        return sum(part.truncated([s[name] for s in mappings if name in s]) for name, part in self.parts.items())
