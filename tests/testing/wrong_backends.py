"""Back ends with one defect each, and one that has none. Part of wrong_zoo.py."""

from __future__ import annotations

import numpy as np

from pocketzoo.core.errors import BundleError
from pocketzoo.zoo.catalog.backend import BackendSpec, RuntimeSpec, Support


class Runner:
    """A graph by onnxruntime, with a defect."""

    def __init__(self, path, fault, threads):
        from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

        self.fault, self.threads, self.inside = fault, threads, OnnxRunner(path)
        self.signature = self.inside.signature

    def infer(self, inputs, out=None):
        if self.fault == "inputs":
            names = [tensor.name for tensor in self.signature.inputs]
            inputs = {n: np.asarray(inputs.get(n, np.zeros((2, 4))), np.float32) for n in names}
        outputs = dict(self.inside.infer(inputs))
        if self.fault == "outputs" or (self.fault == "threads" and self.threads == 1):
            outputs = {name: x + np.float32(0.01) for name, x in outputs.items()}
        for name, place in (out or {}).items():
            if self.fault != "out":
                np.copyto(place, outputs[name])
        return outputs

    def close(self):
        self.inside.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class Silent:
    """Whatever is asked, zeros."""

    signature = None

    def infer(self, inputs, out=None):
        return {"y": np.zeros((1, 4), np.float32)}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Backend:
    def __init__(self, fault):
        self.fault = fault
        if fault == "method":
            self.support = None

    def why_not(self, runtime):
        return ""

    def support(self, target, precision=""):
        return Support(builds=True, runs=True)

    def check(self, model, target, *, options):
        return "asked nobody", ()

    def build(self, graph, out, target, *, options, progress):
        raise BundleError("it builds nothing", "use the graph")

    def load(self, model, *, runtime, target=None, threads=0):
        if self.fault == "unknown" and model.name == "unknown.onnx":
            return Silent()
        return Runner(model, self.fault, threads)


def backend(name, fault="", **changes):
    fields = {"package": "onnxruntime", "module": "onnxruntime", **changes}
    return BackendSpec(name=name, summary="graphs by onnxruntime", open=lambda: Backend(fault), **fields)


def backends():
    return [
        backend("fine-backend"),
        backend("backend-method", "method"),
        backend("backend-taken", runtimes=(RuntimeSpec(name="backend-taken"), RuntimeSpec(name="backend-taken"))),
        backend("backend-outputs", "outputs"),
        backend("backend-out", "out"),
        backend("backend-inputs", "inputs"),
        backend("backend-threads", "threads"),
        backend("backend-unknown", "unknown"),
        backend("backend-at-the-top", package="numpy", module="numpy"),
    ]
