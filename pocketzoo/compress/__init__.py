"""Compression of models. Calling the package runs ``pipeline.compress_model.compress``."""

from pocketzoo.core.callable_module import make_callable

make_callable(__name__, "pocketzoo.compress.pipeline.compress_model", "compress")
