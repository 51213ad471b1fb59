"""Learned observables where a run begins: their networks, with inputs made comparable, and the edges of their bins.

Everything is taken from the training events at the default cuts, once. Edges stand at quantiles of what the network
says at the start: with fixed ones a random network puts all events into few bins, which are merged for their thin
background, and nothing has a derivative.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float32, PyTree
from numpy.typing import NDArray

from pipeline.analysis import Analysis
from pipeline.config import Config, ConfigError
from pipeline.config.learning import MemberInputs, Observable, Pretraining
from pipeline.errors import InputError
from pipeline.event_data import Data, Stream, parts_of
from pipeline.events.cuts import Thresholds
from pipeline.events.scores import Input, Network, Score, score_of, standardised
from pipeline.events.table import InputList, list_inputs
from pipeline.weights import load_network

__all__ = ["about_network", "begin_networks", "fresh_networks", "make_scores", "place_edges", "start_networks"]

REST = 0.005
"""Of the events that lie beyond the first and the last edge that are stated of open bins."""


class Events(NamedTuple):
    """Nominal events in the regions, and how many each stands for: of one data set each, shape "events"."""

    inputs: Float32[np.ndarray, "inputs events"]
    inside: Bool[np.ndarray, "regions events"]
    process: NDArray[np.int64]
    expected: NDArray[np.float64]


def make_scores(config: Config) -> tuple[Score, ...]:
    """The static part of each learned observable."""
    scores = []
    for name, observable in config.observables.items():
        inputs = _inputs(observable)
        _, skeleton = eqx.partition(_network(name, observable, _number(inputs)), eqx.is_inexact_array)
        scores.append(Score(name, inputs, skeleton))
    return tuple(scores)


def fresh_networks(config: Config) -> dict[str, Network]:
    """The networks before they have seen an event."""
    return {
        name: _fresh(name, observable, _number(_inputs(observable))) for name, observable in config.observables.items()
    }


def about_network(score: Score, observable: Observable) -> dict[str, Any]:
    """What makes two networks of equal shapes different: what they are told, in which order, and what they make of it.

    For JSON.
    """
    return {
        "inputs": [name for each in score.inputs for name in each.names],
        "network": observable.network.model_dump(mode="json", exclude={"file"}),
    }


def begin_networks(
    config: Config, analysis: Analysis, thresholds: Thresholds, events: Data | Stream
) -> tuple[Config, dict[str, Network]]:
    """A run with its bins in their places, and its networks: `start_networks` and `place_edges`.

    Of parts on disk the first one stands for all.
    """
    data = next(iter(parts_of(events)))
    networks = start_networks(config, analysis, thresholds, data)
    return place_edges(config, analysis, thresholds | networks, data), networks


def start_networks(config: Config, analysis: Analysis, thresholds: Thresholds, data: Data) -> dict[str, Network]:
    """The networks that a run starts from.

    Args:
        config: the run.
        analysis: its static part.
        thresholds: the default ones, with `fresh_networks`.
        data: the training events.

    Raises:
        InputError: no event is in a region, or not both of signal and background.
    """
    networks = {}
    for score in analysis.events.scores:
        observable = config.observables[score.name]
        events = _events(analysis, thresholds, data, score, opened=True)
        if not len(events.expected):
            raise InputError(f"observables.{score.name}: no training event is in a region that it is the observable of")
        network = _scaled(thresholds[score.name], events.inputs)
        if observable.network.file is not None:
            network = load_network(observable.network.file, network, about_network(score, observable))
        if observable.pretrain is not None:
            signal = [list(config.processes).index(process) for process in observable.pretrain.signal]
            network = _pretrained(score, network, events, np.isin(events.process, signal), observable)
        networks[score.name] = network
    return networks


def place_edges(config: Config, analysis: Analysis, thresholds: Thresholds, data: Data) -> Config:
    """The same run with edges where it asks for quantiles: of what the networks say of expected training events.

    Raises:
        InputError: a network says the same of too many events.
    """
    regions = dict(config.regions)
    for number, (name, region) in enumerate(config.regions.items()):
        if region.bins.place is None:
            continue
        score = next(each for each in analysis.events.scores if each.name == region.observable)
        events, network = _events(analysis, thresholds, data, score, opened=False), thresholds[score.name]
        inside = events.inside[number]
        if not inside.any():
            raise InputError(f"regions.{name}: no training event is in it, so quantiles are nowhere; state the edges")
        said = np.asarray(_says(score, network, jnp.asarray(events.inputs[:, inside])), np.float64)
        edges = _quantiles(said, events.expected[inside], region.bins.number or 1)
        if not (np.diff(edges) > 0).all():
            raise InputError(
                f"regions.{name}: the network of '{score.name}' says the same of too many of the {len(said)} training "
                f"events for {region.bins.number} bins; take fewer bins, other inputs, or more events"
            )
        bins = region.bins.model_copy(
            update={"edges": tuple(map(float, edges)), "number": None, "place": None, "overflow": True}
        )
        regions[name] = region.model_copy(update={"bins": bins})
    return config.model_copy(update={"regions": regions})


def _inputs(observable: Observable) -> tuple[Input, ...]:
    return tuple(
        Input(each.variables, each.objects, each.number) if isinstance(each, MemberInputs) else Input((each,))
        for each in observable.inputs
    )


def _number(inputs: Sequence[Input]) -> int:
    return sum(len(each.names) for each in inputs)


def _network(name: str, observable: Observable, inputs: int) -> PyTree:
    """Float32 throughout, whatever the default precision is."""
    key = jax.random.key(observable.seed)
    made = _make(name, observable)(inputs, key)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, made)


def _make(name: str, observable: Observable) -> Callable[[int, Array], PyTree]:
    architecture = observable.network
    if architecture.make is None:
        return partial(_layers, architecture.layers, getattr(jax.nn, architecture.activation))
    module, _, function = architecture.make.rpartition(".")
    try:
        made: Callable[[int, Array], PyTree] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"observables.{name}.network.make: '{architecture.make}' cannot be loaded ({error}); give the dotted path "
            "of a function make(inputs, key)"
        ) from None
    return made


def _layers(sizes: Sequence[int], activation: Callable[[Array], Array], inputs: int, key: Array) -> PyTree:
    layers: list[Any] = []
    keys = jax.random.split(key, len(sizes) + 1)
    for size, key_of_layer in zip(sizes, keys[:-1], strict=True):
        layers += [eqx.nn.Linear(inputs, size, key=key_of_layer), eqx.nn.Lambda(activation)]
        inputs = size
    return eqx.nn.Sequential([*layers, eqx.nn.Linear(inputs, "scalar", key=keys[-1])])


def _fresh(name: str, observable: Observable, inputs: int) -> Network:
    weights, _ = eqx.partition(_network(name, observable, inputs), eqx.is_inexact_array)
    return Network(
        weights=weights,
        centre=jnp.zeros(inputs, jnp.float32),
        width=jnp.ones(inputs, jnp.float32),
    )


def _events(analysis: Analysis, thresholds: Thresholds, data: Data, score: Score, *, opened: bool) -> Events:
    """Those that stand for something in a nominal template, in regions of which the score is the observable.

    Networks that are not there yet cannot be cut on: cuts on scores are `opened` then.
    """
    listed: InputList = list_inputs(analysis.events, thresholds, data.events, score, opened=opened)
    expected = np.asarray(data.recipe.yields)[0, :, 0, :, 0]
    stands_for = expected.sum(axis=0)[listed.dataset] * listed.weight
    learned = [region.observable == score.name for region in analysis.selection.regions]
    kept = (stands_for != 0) & listed.inside[learned].any(axis=0)
    process = np.abs(expected).argmax(axis=0)[listed.dataset]
    return Events(listed.inputs[:, kept], listed.inside[:, kept], process[kept], stands_for[kept])


def _scaled(network: Network, inputs: Float32[np.ndarray, "inputs events"]) -> Network:
    """Centre and width of each input, without those that are not there."""
    present = np.isfinite(inputs)
    safe = np.where(present.any(axis=1)[:, None], np.where(present, inputs, np.nan), 0.0)
    low, centre, high = np.nanquantile(safe, [0.16, 0.5, 0.84], axis=1)
    # Of a number that is nearly always the same, all but a few lie at one place.
    width = np.where(high > low, (high - low) / 2, np.nanstd(safe, axis=1))
    return Network(
        weights=network.weights,
        centre=jnp.asarray(centre, jnp.float32),
        width=jnp.asarray(np.where(width > 0, width, 1.0), jnp.float32),
    )


@partial(jax.jit, static_argnums=0)
def _says(score: Score, network: Network, inputs: Float32[Array, "inputs events"]) -> Float32[Array, " events"]:
    return score_of(score, network.weights, standardised(network, inputs))


def _quantiles(values: NDArray[np.float64], expected: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges of bins with equally many expected events, negative ones counted as positive.

    The ends are stated so that a plot has somewhere to end.
    """
    order = np.argsort(values, kind="stable")
    share = np.cumsum(np.abs(expected[order]))
    share /= share[-1]
    wanted = [REST, *(np.arange(1, bins) / bins), 1 - REST]
    places = np.minimum(np.searchsorted(share, wanted), len(order) - 1)
    return values[order][places].astype(np.float32).astype(np.float64)


def _pretrained(
    score: Score, network: Network, events: Events, is_signal: NDArray[np.bool_], observable: Observable
) -> Network:
    """The network that tells signal from background best, as far as so many steps lead."""
    how = observable.pretrain or Pretraining(signal=("",))
    weight = np.abs(events.expected)
    for side in (is_signal, ~is_signal):
        if not side.any():
            raise InputError(
                f"observables.{score.name}.pretrain: of signal and background, one has no training event in a region"
            )
        weight[side] /= weight[side].sum()
    inputs = standardised(network, jnp.asarray(events.inputs))
    labels = jnp.asarray(is_signal, jnp.float32)
    cumulated = jnp.asarray(np.cumsum(weight) / weight.sum(), jnp.float32)
    weights = _trained(score, (how.steps, how.batch, how.learning_rate), network.weights, inputs, labels, cumulated)
    return eqx.tree_at(lambda each: each.weights, network, weights)


@partial(jax.jit, static_argnums=(0, 1))
def _trained(
    score: Score,
    how: tuple[int, int, float],
    weights: PyTree,
    inputs: Float32[Array, "inputs events"],
    labels: Float32[Array, " events"],
    cumulated: Float32[Array, " events"],
) -> PyTree:
    """Steps of Adam on events that are drawn by their weight."""
    steps, batch, rate = how
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def cross_entropy(weights: PyTree, number: Array) -> Array:
        said = score_of(score, weights, inputs[:, number])
        return jnp.mean(optax.sigmoid_binary_cross_entropy(said, labels[number]))

    def step(state: tuple[PyTree, Any], key: Array) -> tuple[tuple[PyTree, Any], None]:
        weights, moments = state
        number = jnp.searchsorted(cumulated, jax.random.uniform(key, (batch,), jnp.float32))
        slope = jax.grad(cross_entropy)(weights, jnp.minimum(number, labels.shape[0] - 1))
        update, moments = optimiser.update(slope, moments, weights)
        return (jax.tree.map(lambda w, u: w + u.astype(w.dtype), weights, update), moments), None

    keys = jax.random.split(jax.random.key(0), steps)
    with jax.numpy_dtype_promotion("standard"):
        (weights, _), _ = jax.lax.scan(step, (weights, optimiser.init(weights)), keys)
    return weights
