"""This package as a library: exact histograms, boundary flux, one Newton fit, envelope theorem; one JAX function."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import simple_case as case
from jaxtyping import Array, Float32, Float64, Int32
from pipeline.events.binning import hard_histogram
from pipeline.events.flux import boundary_flux
from pipeline.inference.histfactory import Numbers, Structure, from_pyhf
from pipeline.inference.significance import discovery_significance

BINS = len(case.EDGES) - 1
PLACES = len(case.SAMPLES) * BINS
CHUNK_SIZE = 16384
"""Events in a chunk: a million at once took three times as long (measured)."""

Thresholds = Float64[Array, " cuts"]
Histogram = Float64[Array, "samples bins"]
Chunk = tuple[Float32[Array, "cuts events"], Int32[Array, " events"]]


class Columns(NamedTuple):
    """Traced: the events in chunks, with the bin of each on the joint axis of all samples, which no cut changes."""

    variables: Float32[Array, "chunks cuts events"]
    position: Int32[Array, "chunks events"]
    weights: Float64[Array, " samples"]


def columns_of(events: case.Events) -> Columns:
    """Events in chunks that stay in the cache of a core; the last one is filled up with events in no bin."""
    place = np.searchsorted(case.EDGES, events.mass, side="right") - 1
    position = np.where((place >= 0) & (place < BINS), events.sample * BINS + place, PLACES).astype(np.int32)
    cuts, number = events.variables.shape
    missing = -number % CHUNK_SIZE
    variables = np.pad(events.variables, ((0, 0), (0, missing))).reshape(cuts, -1, CHUNK_SIZE).swapaxes(0, 1)
    position = np.pad(position, (0, missing), constant_values=PLACES).reshape(-1, CHUNK_SIZE)
    return Columns(jnp.asarray(variables), jnp.asarray(position), jnp.asarray(events.weights))


def significance(structure: Structure, numbers: Numbers) -> Callable[[Histogram], Float64[Array, ""]]:
    """The significance as a function of the expected events, for a model whose yields they replace."""
    names = structure.samples
    order = np.array([case.SAMPLES.index(name) for name in names])
    rows = [names.index(name.removeprefix("shape_")) for name in histosys_names(structure)]

    def z(expected: Histogram) -> Float64[Array, ""]:
        nominal = expected[order]
        shift = jnp.stack([jnp.zeros_like(nominal).at[row].set(nominal[row] * case.tilt()) for row in rows])
        varied = replace(numbers, nominal=nominal, histosys_hi=nominal[None] + shift, histosys_lo=nominal[None] - shift)
        return discovery_significance(structure, varied).z

    return z


def compiled() -> tuple[Callable[[Thresholds, Columns], Array], Callable[[Thresholds, Columns], tuple[Array, Array]]]:
    """The significance, and the significance with its gradient, of thresholds and events."""
    structure, numbers, _ = from_pyhf(case.specification(np.ones((len(case.SAMPLES), BINS))))
    z = significance(structure, numbers)

    def step(thresholds: Thresholds, columns: Columns) -> tuple[Float64[Array, ""], Float64[Array, " cuts"]]:
        expected, flux = histogram_and_flux(thresholds, columns)
        significance, slope = jax.value_and_grad(z)(expected)
        return significance, jnp.einsum("sb,sbc->c", slope, flux)

    return jax.jit(lambda thresholds, columns: z(histogram(thresholds, columns))), jax.jit(step)


def histosys_names(structure: Structure) -> list[str]:
    return [modifier.name for modifier in structure.modifiers if modifier.kind == "histosys"]


def histogram(thresholds: Thresholds, columns: Columns) -> Histogram:
    """Expected events."""
    at = thresholds.astype(jnp.float32)

    def of_chunk(chunk: Chunk) -> Float32[Array, "places 1"]:
        variables, position = chunk
        passes = jnp.all(variables > at[:, None], axis=0)
        return hard_histogram(jnp.where(passes, position, PLACES), jnp.ones((CHUNK_SIZE, 1), jnp.float32), PLACES)

    return normalised_sum(of_chunk, columns)[..., 0]


def histogram_and_flux(
    thresholds: Thresholds, columns: Columns
) -> tuple[Histogram, Float64[Array, "samples bins cuts"]]:
    """The same, and its boundary flux for each threshold: an event near a boundary enters or leaves its bin."""
    at, bandwidth = thresholds.astype(jnp.float32), jnp.float32(case.BANDWIDTH)
    flux_of_cuts = jax.vmap(boundary_flux, in_axes=(0, 0, None, 0, 0))

    def of_chunk(chunk: Chunk) -> Float32[Array, "places terms"]:
        variables, position = chunk
        passes = variables > at[:, None]
        failed = jnp.sum(~passes, axis=0, dtype=jnp.int32)
        passes_others = failed[None] == jnp.where(passes, 0, 1)
        flux = flux_of_cuts(variables, at, bandwidth, passes, passes_others)
        selected = jnp.where(failed == 0, jnp.float32(1), jnp.float32(0))
        terms = jnp.concatenate([selected[None], jnp.where(passes, -flux, flux)])
        return hard_histogram(jnp.where(jnp.any(terms != 0, axis=0), position, PLACES), terms.T, PLACES)

    total = normalised_sum(of_chunk, columns)
    return total[..., 0], total[..., 1:]


def normalised_sum(
    of_chunk: Callable[[Chunk], Float32[Array, "places terms"]], columns: Columns
) -> Float64[Array, "samples bins terms"]:
    """Histograms of all chunks, added and multiplied with the weight of each sample."""
    total = jnp.sum(jax.lax.map(of_chunk, (columns.variables, columns.position)).astype(jnp.float64), axis=0)
    return total.reshape(len(case.SAMPLES), BINS, -1) * columns.weights[:, None, None]


def main() -> None:
    events, _ = case.arguments()
    thresholds, columns = jnp.asarray(case.start(len(events.variables))), columns_of(events)
    value, step = compiled()
    case.measure(lambda: float(value(thresholds, columns)), lambda: jax.device_get(step(thresholds, columns)), ["jax"])


if __name__ == "__main__":
    main()
