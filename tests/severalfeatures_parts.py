"""The modules of severalfeatures.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Pyramid(nn.Module):
    """Images to maps of two sizes, by name."""

    def __init__(self, names: tuple[str, ...] = ("fine", "coarse")) -> None:
        super().__init__()
        self.first, self.second, self.names = block(1, 16, 1), block(16, 32, 2), names

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.first(x)
        return dict(zip(self.names, (fine, self.second(fine)), strict=False))


class First(Pyramid):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(x)


class Two(nn.Module):
    """An image and a row of numbers, each by an encoder of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.image = block(1, 16, 1)
        self.row = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())

    def forward(self, image: Tensor, row: Tensor) -> dict[str, Tensor]:
        return {"seen": self.image(image), "told": self.row(row)}


class Tokens(nn.Module):
    """Texts to tokens, which are not zero where the mask is."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(12, 16), nn.Linear(16, 16)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.linear(self.embedding(ids)), "mask": mask}


class Means(nn.Module):
    """The mean of each of the features that it is given, where a mask is of what that keeps; then a linear layer."""

    def __init__(self, features, outputs: int) -> None:
        super().__init__()
        self.specs = dict(features) if isinstance(features, dict) else {"": features}
        self.masks = [name for name, spec in self.specs.items() if spec.kind == "mask"]
        self.linear = nn.Linear(sum(spec.channels for n, spec in self.specs.items() if n not in self.masks), outputs)

    def forward(self, features) -> Tensor:
        features = features if self.specs.keys() != {""} else {"": features}
        mask = features[self.masks[0]].float()[..., None] if self.masks else None
        means = []
        for name, spec in self.specs.items():
            x = features[name]
            if spec.kind == "sequence":
                means.append(x.mean(1) if mask is None else (x * mask).sum(1) / mask.sum(1).clamp(min=1))
            elif spec.kind != "mask":
                means.append(x.mean((2, 3)) if spec.kind == "map" else x)
        return self.linear(torch.cat(means, 1) if means else torch.zeros(len(mask), 0))


class EachToken(nn.Module):
    """A score of each token, 0 where there is none."""

    def __init__(self, features, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features["tokens"].channels, outputs)

    def forward(self, features) -> Tensor:
        return self.linear(features["tokens"]) * features["mask"].float()[..., None]


class VectorAndScores(nn.Module):
    """A vector first, which nothing learns, and scores as the second output."""

    def __init__(self, features, outputs: int) -> None:
        super().__init__()
        self.vector, self.scores = nn.Linear(features.channels, 8), nn.Linear(features.channels, outputs)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean = x.mean((2, 3))
        return {"vector": self.vector(mean), "scores": self.scores(mean)}


def looking_at_inputs(config):
    """A decoder of scores that needs every input of the samples that it decodes."""
    from pocketzoo.core.errors import DataError
    from pocketzoo.zoo.tasks.decoders.classes import SoftmaxDecoder
    from pocketzoo.zoo.tasks.decoders.configs import OutputConfig

    decode = SoftmaxDecoder(OutputConfig())

    def decoded(outputs, inputs):
        count = len(outputs["logits"])
        if list(inputs) != ["input_ids", "mask"] or any(len(x) != count for x in inputs.values()):
            raise DataError(f"the inputs of {count} samples are {list(inputs)}", "give those of the batch")
        if not ((inputs["input_ids"] != 0) == (inputs["mask"] != 0)).all():
            raise DataError("the mask is not that of the ids", "give those of the batch")
        answers = decode(outputs, inputs)
        sure = (inputs["input_ids"] == 9).any(1).astype(int)  # what its class is, in the data of these tests
        return type(answers)(sure, answers.scores, answers.probabilities)

    return decoded
