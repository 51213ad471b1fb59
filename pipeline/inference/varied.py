"""What is done about the noise of varied templates, which few simulated events may have made.

A variation that comes from a sample of its own shifts a bin by δ̂ = δ + noise. A fit takes δ̂ for the direction in which
the systematic uncertainty moves all bins, exactly known. Noise is like no other effect, so the data seem to constrain
the parameter by it, and an optimiser finds the cuts where the noise happens to help. Three remedies, of which none is
the default:

- smoothing: in each region the ratio of varied to nominal template is replaced by a local straight line in the number
  of the bin (W. S. Cleveland, J. Am. Stat. Assoc. 74 (1979) 829, with a Gaussian kernel), in which a bin counts with
  its effective number of simulated events. The change of the yield of the region stays what it was.
- pruning: a shape of which no bin, up or down, differs by more than a threshold is left out; likewise a change of the
  yield. So the loss jumps where one is reached, as it does where bins are merged.
- uncertainty: the statistical error of the shift joins that of the nominal template. If a shift is known to be δ̂ with
  the errors Σ, what a parameter with a unit Gaussian constraint does to the bins has the covariance ⟨δ δᵀ⟩ = δ̂ δ̂ᵀ + Σ.
  Independent errors of the bins are what `mc_statistics` has parameters for, and their variances add up: no new
  parameter, no other workspace. But that supposes nothing of the size of δ, which the bins tell together: by chance
  alone, χ², the sum of the squares of δ̂ in units of their errors, is the number of bins. So the variances count with
  the share k = 1 − bins / χ², 0 at least, that W. James and C. Stein (Proc. 4th Berkeley Symp. 1 (1961) 361) find not
  to be noise. Where all is noise, nothing is known to be there; where hardly anything is, the errors are small.

All three are smooth functions of the templates almost everywhere, so the derivative passes through them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64
from numpy.typing import NDArray

from pipeline.inference.measurement import (
    Channel,
    Measurement,
    factors_and_shapes,
    in_merged_bins,
    within_channels,
)
from pipeline.inference.templates import Templates

__all__ = ["Quality", "fitted", "pruned", "qualities", "smoothed", "treated", "with_counted_errors", "with_errors"]


def fitted(measurement: Measurement, templates: Templates) -> Templates:
    """The templates as the likelihood sees them: treated, in merged bins, with the errors of the variations."""
    return with_errors(measurement, in_merged_bins(measurement, treated(measurement, templates)))


def treated(measurement: Measurement, templates: Templates) -> Templates:
    """Smoothed and pruned as the measurement says, with the share of the errors that counts; nominal templates stay."""
    if measurement.variation_errors:
        templates = with_counted_errors(measurement, templates)
    if measurement.smoothing > 0:
        templates = smoothed(templates, measurement.channels, measurement.smoothing)
    return pruned(measurement, templates)[0] if measurement.pruning > 0 else templates


def with_counted_errors(measurement: Measurement, templates: Templates) -> Templates:
    """The templates with the share of the variances of the shifts that counts, k for each variation and process.

    χ² is that of the shapes: what differs in the yield of a region is better known, and no measure of a bin's shift.

    Raises:
        ValueError: the recipe of the templates does not know these errors.
    """
    variance = templates.shift_variance
    if variance is None:
        raise ValueError("the templates have no errors of their variations; see pipeline.division.with_design")
    _, shapes = factors_and_shapes(measurement, templates)
    known = variance > 0
    squares = jnp.where(known, (shapes - templates.yields[:1]) ** 2 / jnp.where(known, variance, 1.0), 0.0)
    filled = known.astype(jnp.float64) @ within_channels(measurement.channels)
    free = jnp.sum(jnp.maximum(filled - 1.0, 0.0), axis=2)
    chi_squared = jnp.sum(squares, axis=2)
    large = chi_squared > free
    share = jnp.where(large, 1.0 - free / jnp.where(large, chi_squared, 1.0), 0.0)
    return eqx.tree_at(lambda each: each.shift_variance, templates, share[:, :, None] * variance)


def smoothed(templates: Templates, channels: Sequence[Channel], width: float) -> Templates:
    """Varied templates whose ratio to the nominal one is a local straight line, channel by channel.

    A ratio that is a straight line in the number of the bin stays what it is, and so does the sum over the bins of a
    channel. Bins without nominal yield keep theirs.

    Args:
        templates: in the bins of the config.
        channels: where they are on the axis of bins.
        width: standard deviation of the kernel, in bins.
    """
    nominal, variance = templates.yields[0], templates.variance
    usable, measured = nominal > 0, variance > 0
    content = jnp.where(usable, nominal, 1.0)
    # Without statistical errors, the expected events say how well a bin is known.
    events = jnp.where(measured, content**2 / jnp.where(measured, variance, 1.0), content)
    lines = _local_lines(channels, width, jnp.where(usable, events, 0.0))
    ratio = jnp.where(usable[None], templates.yields / content[None], 0.0)
    smooth = nominal[None] * jnp.maximum(jnp.einsum("pij,vpj->vpi", lines, ratio), 0.0)
    inside = within_channels(channels)
    before, after = (jnp.where(usable[None], each, 0.0) @ inside for each in (templates.yields, smooth))
    kept = jnp.where(after > 0, before / jnp.where(after > 0, after, 1.0), 1.0) @ inside.T
    varied = jnp.where(usable[None], smooth * kept, templates.yields)
    return eqx.tree_at(lambda each: each.yields, templates, jnp.concatenate([nominal[None], varied[1:]]))


def _local_lines(
    channels: Sequence[Channel], width: float, events: Float64[Array, "processes bins"]
) -> Float64[Array, "processes bins bins"]:
    """The weights of all bins in the value of a straight line, fitted around each bin, at this bin.

    Where one bin alone counts, it is its own value.
    """
    inside = within_channels(channels)
    places = np.arange(inside.shape[0], dtype=np.float64)
    distance = places[None, :] - places[:, None]
    kernel = np.exp(-0.5 * (distance / width) ** 2) * (inside @ inside.T)
    weights = kernel[None] * events[:, None, :]
    total = weights.sum(axis=2, keepdims=True)
    shares = weights / jnp.where(total > 0, total, 1.0)
    centre = jnp.sum(shares * distance[None], axis=2, keepdims=True)
    spread = jnp.sum(shares * (distance[None] - centre) ** 2, axis=2, keepdims=True)
    wide = spread > 1e-9
    slope = jnp.where(wide, (distance[None] - centre) / jnp.where(wide, spread, 1.0), 0.0)
    return shares * (1.0 - centre * slope)


def pruned(
    measurement: Measurement, templates: Templates
) -> tuple[Templates, Bool[Array, "variations processes channels"], Bool[Array, "variations processes channels"]]:
    """The templates without small effects, and which shapes and which changes of the yield have been kept.

    An effect stays if that of the other side of its nuisance parameter does. A shape that is left out has no
    statistical error.
    """
    nominal, inside = templates.yields[0], within_channels(measurement.channels)
    factors, shapes = factors_and_shapes(measurement, templates)
    differs = jnp.abs(shapes - nominal[None]) > measurement.pruning * jnp.abs(nominal)[None]
    sides = _sides(measurement, len(templates.yields))

    def on_either_side(large: Bool[Array, "variations processes channels"]) -> Bool[Array, "..."]:
        return jnp.einsum("vw,wpc->vpc", sides, large.astype(jnp.float64)) > 0

    shape = on_either_side(differs.astype(jnp.float64) @ inside > 0)
    scale = on_either_side(jnp.abs(factors - 1.0) > measurement.pruning)
    keeps_shape, keeps_scale = ((each.astype(jnp.float64) @ inside.T) > 0 for each in (shape, scale))
    rest = jnp.where(keeps_shape, shapes, nominal[None]) * jnp.where(keeps_scale, factors @ inside.T, 1.0)
    yields = jnp.where(keeps_shape & keeps_scale, templates.yields, rest)
    variance = templates.shift_variance
    return (
        Templates(
            yields=jnp.concatenate([nominal[None], yields[1:]]),
            variance=templates.variance,
            shift_variance=None if variance is None else jnp.where(keeps_shape, variance, 0.0),
        ),
        shape,
        scale,
    )


def _sides(measurement: Measurement, variations: int) -> NDArray[np.float64]:
    """Which variations are the two sides of one nuisance parameter, each with itself; shape "variations variations"."""
    sides = np.eye(variations)
    for nuisance in measurement.nuisances:
        if nuisance.up is not None and nuisance.down is not None:
            sides[nuisance.up, nuisance.down] = sides[nuisance.down, nuisance.up] = 1.0
    return sides


def with_errors(measurement: Measurement, templates: Templates) -> Templates:
    """Treated templates with variances that know the errors of all variations, if the measurement asks for it."""
    if not measurement.variation_errors or templates.shift_variance is None:
        return templates
    counted = sum(_acting(measurement, name, len(templates.yields)) for name in _varied(measurement))
    added = jnp.sum(counted * templates.shift_variance, axis=0)
    return eqx.tree_at(lambda each: each.variance, templates, templates.variance + added)


def _varied(measurement: Measurement) -> tuple[str, ...]:
    """The nuisance parameters with varied templates."""
    return tuple(dict.fromkeys(each.name for each in measurement.nuisances if each.up is not None))


def _acting(measurement: Measurement, name: str, variations: int) -> NDArray[np.float64]:
    """How much each shift counts for a nuisance parameter, shape "variations processes bins": half for either side."""
    bins = sum(channel.bins for channel in measurement.channels)
    counted = np.zeros((variations, len(measurement.processes), bins))
    for nuisance in measurement.nuisances:
        sides = [side for side in (nuisance.up, nuisance.down) if side is not None]
        if nuisance.name != name:
            continue
        for process in nuisance.processes:
            for channel in measurement.channels:
                if nuisance.acts_on(process, channel):
                    for side in sides:
                        counted[side, process, channel.offset : channel.offset + channel.bins] += 1.0 / len(sides)
    return counted


class Quality(NamedTuple):
    """How well a nuisance parameter's templates are known, and what has been left out of them.

    Attributes:
        error: statistical error of the shifts over their size, both as the root of the sum of squares over processes
            and bins; 1 and more is noise. None where nothing is shifted.
        pruned: shapes, and changes of the yield, that were left out, up and down alike.
        of: how many pairs of a process and a region it acts on.
    """

    error: float | None
    pruned: tuple[int, int]
    of: int


def qualities(measurement: Measurement, templates: Templates) -> dict[str, Quality]:
    """Of every nuisance parameter with varied templates, from templates that nothing has been done to."""
    starts = [channel.offset for channel in measurement.channels]
    shift = np.asarray(templates.yields - templates.yields[:1])
    variance = np.zeros_like(shift) if templates.shift_variance is None else np.asarray(templates.shift_variance)
    after = smoothed(templates, measurement.channels, measurement.smoothing) if measurement.smoothing else templates
    prunes, kept = measurement.pruning > 0, [np.asarray(each) for each in pruned(measurement, after)[1:]]
    known = {}
    for name in _varied(measurement):
        counted = _acting(measurement, name, len(shift))
        size, noise = np.sum(counted * shift**2), np.sum(counted * variance)
        acts = counted[:, :, starts] > 0
        left_out = [int(prunes * np.sum(acts.any(axis=0) & ~(acts & each).any(axis=0))) for each in kept]
        error = float(np.sqrt(noise / size)) if size > 0 else None
        known[name] = Quality(error, (left_out[0], left_out[1]), int(np.sum(acts.any(axis=0))))
    return known
