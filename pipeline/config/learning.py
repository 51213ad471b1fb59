"""Learned observables: which network makes one, of what, and how it is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.model import HomePath, Model

__all__ = ["Architecture", "MemberInputs", "Observable", "Pretraining"]


class MemberInputs(Model):
    """Variables of the first `number` members of a set, in stored order; what is not there is at the mean."""

    objects: str
    variables: Annotated[tuple[str, ...], Field(min_length=1)]
    number: Annotated[int, Field(ge=1)] = 1


class Architecture(Model):
    """Fully connected layers of so many neurons each; or a network of one's own.

    `make` is the dotted path of a function `make(inputs, key)` that returns any callable pytree of JAX arrays: from
    standardised inputs, shape "inputs", to one number. `file` holds weights to start from, as a run leaves them.
    """

    layers: tuple[Annotated[int, Field(ge=1)], ...] = (32, 32)
    activation: Literal["silu", "relu", "tanh", "gelu"] = "silu"
    make: str | None = None
    file: HomePath | None = None


class Pretraining(Model):
    """Cross-entropy of `signal` processes against all others, on nominal training events that are in a region.

    Both sides weigh the same, and negative weights count as positive here; each step looks at `batch` events.
    """

    signal: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 4096
    learning_rate: Annotated[float, Field(gt=0)] = 0.003


class Observable(Model):
    """A variable of the events that a network makes: what it says before any sigmoid, a number without a unit.

    `inputs` are variables of the events, numbers of members (`n_jet`), and variables of the members of sets. They are
    standardised on the training events. While it is trained, weights move by AdamW with `learning_rate`, which falls
    as that of the thresholds does, and `weight_decay`; gradients are shortened to the length `clip`. `bandwidth` is
    that of the kernel at the edges of the bins, in widths of the bins beside them. `seed` is of the first weights.
    """

    network: Architecture = Architecture()
    inputs: Annotated[tuple[str | MemberInputs, ...], Field(min_length=1)]
    pretrain: Pretraining | None = None
    trainable: bool = True
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip: Annotated[float, Field(gt=0)] = 1.0
    bandwidth: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 1

    @model_validator(mode="after")
    def _starts_somewhere(self) -> "Observable":
        if self.network.file is not None and self.pretrain is not None:
            raise ValueError("the network is read from a file: take 'pretrain' or 'network.file' out")
        if not self.trainable and self.pretrain is None and self.network.file is None and self.network.make is None:
            raise ValueError("a network of random weights that stays as it is says nothing: 'pretrain' it, or train it")
        return self
