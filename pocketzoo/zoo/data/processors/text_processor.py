"""The processor of texts: token ids, and where the model takes them their attention mask and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, message_of, nearest
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import TextSpec
from pocketzoo.zoo.data.processors.base import ProcessorBase, by, called
from pocketzoo.zoo.data.processors.encoded_text import GIVE, text_of
from pocketzoo.zoo.data.processors.text_arguments import text_or_file
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

EXACT = 2**24  # whole numbers below it are exact as float32, which is how an .npz may have ids


class TextProcessor(ProcessorBase):
    """Texts, or token ids, as ids (B, T) filled up with the padding's, with their mask where the model takes one."""

    def __init__(self, spec: TextSpec, files: Mapping[str, Path]) -> None:
        self.spec, self.files, self.text = spec, files, spec
        names = (spec.name, spec.mask, spec.types)
        self.inputs = tuple(TensorSpec(name=name, shape=spec.shape, dtype=spec.dtype) for name in names if name)
        self.lengths = (1, spec.max_length)
        self.wants = f"give texts, or token ids: {spec.dtype} of (batch, length), of at most {spec.max_length} tokens"

    @cached_property
    def encoder(self) -> TextEncoder:
        """The tokenizer, read when a text is first met: ids need none.

        Raises:
            MissingDependencyError: the package tokenizers is not installed.
            BundleError: it is missing or damaged.
        """
        return TextEncoder(self.spec, self.files)

    def __call__(self, samples: Sequence[Any]) -> Arrays:
        if not len(samples):
            return {tensor.name: np.empty((0, 0), tensor.dtype) for tensor in self.inputs}
        if all(isinstance(sample, str | bytes | Path) for sample in samples):
            return self._encoded([self._text(sample) for sample in samples])
        if all(isinstance(sample, np.ndarray) for sample in samples):
            return self._of_ids([self._ids(sample) for sample in samples])
        if all(isinstance(sample, Mapping) for sample in samples):
            return self._of_rows(samples)
        bad = next(s for s in samples if not isinstance(s, str | bytes | Path))
        raise DataError(f"a text cannot be {called(bad)}", self.wants)

    def _encoded(self, texts: Sequence[str]) -> Arrays:
        if self.spec.tokenizer not in self.files:
            raise DataError(
                "this model has no tokenizer, so it cannot read text", "give token ids: int64 of (batch, length)"
            )
        return self._named(*self.encoder.masked(texts))

    def _text(self, sample: str | bytes | Path) -> str:
        if isinstance(sample, str):
            return sample
        if isinstance(sample, bytes):
            return text_of(sample, "these bytes")
        try:
            data = sample.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read the text {sample}: {message_of(error)}", GIVE) from error
        return text_of(data, str(sample))

    def _ids(self, row: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Whole numbers (T,), however a file stored them."""
        if row.ndim != 1 or row.dtype.kind not in "uif" or not _whole(row):
            raise DataError(
                f"this model reads token ids, but the data are {row.dtype} of shape {by(row.shape)}",
                "give texts, or rows of non-negative integers",
            )
        return row.astype(np.int64)

    def _of_ids(self, rows: Sequence[npt.NDArray[np.int64]]) -> Arrays:
        ids = np.full((len(rows), max(map(len, rows))), self.spec.pad, np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return self._named(ids, (ids != self.spec.pad).astype(np.int64))

    def _of_rows(self, samples: Sequence[Mapping[str, Any]]) -> Arrays:
        """Samples that are arrays by name, of different lengths perhaps."""
        names = {tensor.name for tensor in self.inputs}
        for sample in samples:
            if self.spec.name not in sample or not sample.keys() <= names:
                unknown = next(iter(sample.keys() - names), self.spec.name)
                raise DataError(f"a sample has {', '.join(sample)}", nearest(unknown, names))
        arrays = dict(self._of_ids([self._ids(np.asarray(sample[self.spec.name])) for sample in samples]))
        for tensor in self.inputs[1:]:
            for i, sample in enumerate(samples):
                if tensor.name in sample:
                    own = self._ids(np.asarray(sample[tensor.name]))
                    if len(own) != len(sample[self.spec.name]):
                        raise DataError(
                            f"{tensor.name!r} has {len(own)} values for {len(sample[self.spec.name])} ids",
                            "give one for each",
                        )
                    arrays[tensor.name][i] = 0
                    arrays[tensor.name][i, : len(own)] = own
        return arrays

    def _named(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Arrays:
        spec = self.spec
        arrays = {spec.name: ids, spec.mask: mask, spec.types: np.zeros_like(ids)}
        return {tensor.name: arrays[tensor.name].astype(tensor.dtype, copy=False) for tensor in self.inputs}

    def arrays(self, given: Any) -> Arrays | None:
        if isinstance(given, np.ndarray) and given.dtype.kind not in "USO":
            if given.ndim != 2 or given.dtype != self.spec.dtype:
                return {**{tensor.name: given for tensor in self.inputs}}  # whose check says what is wrong
            return self._named(given, (given != self.spec.pad).astype(np.int64))
        ready = super().arrays(given)
        if ready is not None and self.spec.name in ready and len(ready) < len(self.inputs):
            ids = ready[self.spec.name]
            ready = {**self._named(ids, (ids != self.spec.pad).astype(np.int64)), **ready}
        return ready

    def samples(self, given: Any) -> Sequence[Any]:
        if isinstance(given, np.ndarray):
            return [str(text) for text in given.ravel().tolist()]
        return super().samples(given)

    def sample(self, argument: str | Path) -> Any:
        """See ``Processor``: what is in a file of that name, else the text itself, unless it looks like a file's.

        Raises:
            DataError: it is a folder, or looks like a file that cannot be read.
        """
        return text_or_file(argument)

    def check_values(self, arrays: Arrays) -> None:
        spec, x = self.spec, arrays[self.spec.name]
        if 0 in x.shape:
            raise DataError(f"input {spec.name!r} is {x.shape}, the model expects ('batch', 'length')", self.wants)
        if x.shape[1] > spec.max_length:
            raise DataError(f"the texts have {x.shape[1]} tokens, the model expects {spec.max_length}", "truncate them")
        low, high = int(x.min()), int(x.max())
        if low < 0 or (spec.vocabulary and int(x[x != spec.pad].max(initial=0)) >= spec.vocabulary):
            raise DataError(
                f"token ids range from {low} to {high}, the vocabulary is 0 to {spec.vocabulary - 1}",
                f"encode the texts with the model's own {spec.tokenizer}",
            )
        for tensor in self.inputs[1:]:
            if arrays[tensor.name].shape != x.shape:
                raise DataError(
                    f"input {tensor.name!r} is {arrays[tensor.name].shape}, the ids are {x.shape}", "give one for each"
                )

    def random(self, count: int, length: int = 0) -> Arrays:
        """See ``Processor``: ids of any token but the padding; without ``length`` some rows are filled up."""
        spec, vocabulary = self.spec, max(self.spec.vocabulary, 2)
        longest = length or min(spec.max_length, 9 + count)
        ids = np.random.default_rng(0).integers(0, vocabulary, (count, longest))
        ids = np.where(ids == spec.pad, (spec.pad + 1) % vocabulary, ids)
        lengths = np.full(count, longest) if length else np.maximum(longest - np.arange(count), 1)
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        return self._named(np.where(mask == 1, ids, spec.pad), mask)

    def truncated(self, samples: Sequence[Any]) -> int:
        texts = [self._text(sample) for sample in samples if isinstance(sample, str | bytes | Path)]
        return self.encoder.cut(texts) if texts and self.spec.tokenizer in self.files else 0


def _whole(row: npt.NDArray[Any]) -> bool:
    return bool((row == np.floor(row)).all() and (row >= 0).all() and (row < EXACT).all())
