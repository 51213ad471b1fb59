"""What a talk of 2024 showed that autodiff for the AGC needs, each example through our pipeline, on the same file.

The examples used awkward's JAX backend on ragged arrays of 200 real events. That backend is deprecated, cannot be
jitted, and its results were seen to be wrong under JAX's asynchronous dispatch. Here ragged arrays end at
`pipeline.ingest`: events become dense groups in which an absent jet is NaN, and everything is plain `jax.numpy`, under
`jit`. Truth is awkward on NumPy, vector, or the derivative written out by hand. Where upstream fails today, the
docstring says how (awkward 2.14, vector 1.9, jax 0.10, hist 2.12, coffea 2026.9).
"""

import awkward as ak
import hist
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vector
from pipeline.analyses import ttbar
from pipeline.analyses.kinematics import invariant_mass, px_py_pz_energy
from pipeline.events.batch import Events
from pipeline.events.cuts import Cut, ObjectSet, Region, Requirement, Selection
from pipeline.events.dense import dense_groups
from pipeline.events.evaluation import EventAnalysis, Layout
from pipeline.events.flux import pack
from pipeline.events.function import Members
from pipeline.events.ragged import Ragged, RaggedSample
from pipeline.events.yields import hard_yields
from pipeline.ingest import ObjectSkim, Skim, read

pytestmark = pytest.mark.slow

JET = {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass"}
EDGES = np.linspace(0.0, 800.0, 17)  # GeV, of HT
CUT, BANDWIDTH = 20.0, 4.0  # GeV
SELECTION = Selection(
    sets=(ObjectSet("jet", "jet"),),
    unions=(),
    cuts=(Cut("jet_pt", ("jet",), "pt", "above"),),
    regions=(Region("dijet", (Requirement("jet", 2.0),), "ht", len(EDGES) - 1, 0),),
)


class HT:
    """An event function that prepares no trijets."""

    variables = staticmethod(ttbar.variables)


@pytest.fixture(scope="module")
def events(external_data):
    skim = Skim(
        objects=(
            ObjectSkim("Electron", ("pt", "eta", "phi", "mass")),
            ObjectSkim("Muon", ("pt",)),
            ObjectSkim("Jet", tuple(JET.values())),
        )
    )
    return read([external_data / "cms_open_data_200_events.root"], skim).events


@pytest.fixture(scope="module")
def groups(events):
    """The file as our dense groups."""
    number = np.arange(len(events), dtype=np.int32)
    jets = {name: ak.to_numpy(ak.flatten(events.Jet[branch])) for name, branch in JET.items()}
    sample = RaggedSample(
        objects={"jet": Ragged(ak.to_numpy(ak.num(events.Jet)), jets)},
        columns={},
        weight=np.ones(len(events), np.float32),
        index=number,
        collision=number,
    )
    (groups,) = dense_groups([[sample]], HT, chunk_size=256)
    return groups


@pytest.fixture(scope="module")
def first(groups):
    """The events with at most eight jets in float64: columns "jets events", and the row of each event in the file."""
    columns = groups[0].objects["jet"]
    laid_out = {name: jnp.asarray(one_chunk(column), jnp.float64) for name, column in columns.items()}
    return laid_out, np.asarray(groups[0].index).ravel()


def one_chunk(column):
    """Shape "chunks jets events" to "jets events"."""
    return jnp.moveaxis(column, 1, 0).reshape(column.shape[1], -1)


def on_rows(ragged, rows):
    """Ragged columns of the file for the rows of a dense group; padding events are empty."""
    return ak.concatenate([ragged[rows[rows >= 0]], ak.Array([[0.0]] * int((rows < 0).sum()))[:, :0]])


def filled(column):
    """Absent jets as 0: the sum over present ones, with derivative 0 where there is none."""
    return jnp.where(jnp.isnan(column), 0.0, column)


def test_the_file_is_whole(groups, events):
    assert sum(int((group.index >= 0).sum()) for group in groups) == len(events) == 200
    jets = sum(int(np.isfinite(group.objects["jet"]["pt"]).sum()) for group in groups)
    assert jets == int(ak.sum(ak.num(events.Jet))) == 537


def test_gradient_through_a_ragged_selection_and_reordering(first, events):
    """`x[[2, 2, 0], ::-1] ** 3`: events picked, one of them twice, and their jets turned around.

    Upstream: jvp, vjp and grad work eagerly; under `jax.jit` every ragged operation fails (ConcretizationTypeError).
    """
    columns, rows = first
    places = np.array([int(np.flatnonzero(rows == row)[0]) for row in (2, 2, 0)])
    present = ~jnp.isnan(columns["pt"])

    @jax.jit
    def cubes(pt):
        return jnp.where(present, pt, 0.0)[::-1, places] ** 3

    tangent = filled(columns["eta"])
    value, change = jax.jvp(cubes, (filled(columns["pt"]),), (tangent,))
    here = np.asarray(present)[::-1, places]
    x, dx = (ak.values_astype(events.Jet[name], np.float64)[[2, 2, 0], ::-1] for name in ("pt", "eta"))
    assert ak.num(x).tolist() == [4, 4, 2]
    np.testing.assert_allclose(np.asarray(value).T[here.T], ak.flatten(x**3), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(change).T[here.T], ak.flatten(3 * x**2 * dx), rtol=1e-12)

    gradient = jax.grad(lambda pt: cubes(pt).sum())(filled(columns["pt"]))
    twice, once = ak.to_numpy(x[0])[::-1], ak.to_numpy(x[2])[::-1]  # the event that was picked twice counts twice
    np.testing.assert_allclose(gradient[:4, places[0]], 2 * 3 * twice**2, rtol=1e-12)
    np.testing.assert_allclose(gradient[:2, places[2]], 3 * once**2, rtol=1e-12)
    assert float(jnp.abs(gradient).sum()) == pytest.approx(6 * (twice**2).sum() + 3 * (once**2).sum())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradient_of_sum_and_mean_over_ragged_jets(first, events, reduction):
    """`ak.sum(ak.sum(x) * x)` and `ak.mean(ak.sum(x) * x)` (awkward #2638), with x the pt of all jets.

    Upstream: both work eagerly since 2024, not under `jax.jit`.
    """
    columns, rows = first
    present = ~jnp.isnan(columns["pt"])
    jets = int(present.sum())
    divisor = 1 if reduction == "sum" else jets

    @jax.jit
    @jax.value_and_grad
    def of_all_jets(pt):
        product = jnp.sum(filled(pt)) * filled(pt)
        return jnp.sum(product) if reduction == "sum" else jnp.mean(product, where=present)

    value, gradient = of_all_jets(columns["pt"])
    x = ak.values_astype(on_rows(events.Jet.pt, rows), np.float64)
    total = float(ak.sum(x))
    expected = ak.sum(total * x) if reduction == "sum" else ak.mean(total * x)
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(np.asarray(gradient)[np.asarray(present)], 2 * total / divisor, rtol=1e-12)
    assert np.all(np.asarray(gradient)[~np.asarray(present)] == 0)


def test_gradient_of_a_scalar_shift_of_all_jets(groups, events):
    """x + a with a traced scalar a (awkward #2556, #2637): here the mean HT of the events when all jets shift.

    HT is the pipeline's own. Its derivative is the mean number of jets. Upstream: works eagerly; the reproducer of the
    issue, which returns an array, still raises "Gradient only defined for scalar-output functions".
    """

    @jax.jit
    @jax.value_and_grad
    def mean_ht(shift):
        columns = [one_chunk(group.objects["jet"]["pt"]) for group in groups]
        jets = [Members(bits=pack(~jnp.isnan(pt)), columns={"pt": pt + shift}) for pt in columns]
        totals = [jnp.sum(ttbar.ht(jet)) for jet in jets]
        return sum(totals) / jnp.float32(len(events))

    value, slope = mean_ht(jnp.float32(2.0))
    expected = ak.mean(ak.sum(ak.values_astype(events.Jet.pt, np.float64) + 2.0, axis=1))
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert float(slope) == pytest.approx(537 / 200, rel=1e-6)


def test_gradient_of_four_vector_addition(first, events):
    """The mass of all jets of an event together (coffea #874, awkward #2591), by vector and by hand.

    The gradient by the pt of every jet is (E·dE − p·dp)/m. Upstream: works eagerly by now. A zero-padded jet gives NaN
    gradients there; here absent jets are replaced by a massive one before the formula and left out after it.
    """
    columns, rows = first
    present = ~jnp.isnan(columns["pt"])
    several = present.sum(axis=0) > 1
    rest = [jnp.where(present, columns[name], 1.0) for name in ("eta", "phi", "mass")]

    @jax.jit
    def masses(pt):
        components = px_py_pz_energy(jnp.where(present, pt, 1.0), *rest)
        return invariant_mass(*(jnp.where(present, component, 0.0).sum(axis=0) for component in components))

    names = ("pt", "eta", "phi", "mass")
    ragged = {name: ak.values_astype(on_rows(events.Jet[name], rows), np.float64) for name in names}
    jets = vector.zip(ragged | {"mass": abs(ragged["mass"])})  # vector takes a mass below zero for space-like
    total = ak.sum(jets, axis=1)
    keep = np.asarray(several)
    np.testing.assert_allclose(masses(columns["pt"])[several], ak.to_numpy(total.mass)[keep], rtol=1e-9)

    gradient = jax.grad(lambda pt: masses(pt)[several].sum())(filled(columns["pt"]))
    energy = jets.pt * np.cosh(jets.eta) ** 2 / jets.E
    along = total.px * np.cos(jets.phi) + total.py * np.sin(jets.phi) + total.pz * np.sinh(jets.eta)
    expected = (total.E * energy - along) / total.mass
    found = ak.unflatten(np.asarray(gradient).T[np.asarray(present).T], np.asarray(present.sum(axis=0)))
    np.testing.assert_allclose(ak.flatten(found[keep]), ak.flatten(expected[keep]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_the_candidate_mass_that_was_nan(events, precision):
    """Electrons as (pt, eta, phi, energy), whose mass was `[0.03125, 0.0, nan, 0.0, 0.03125]` in coffea.

    Rounding makes E² − p² negative. Upstream, the value is a number today, and the NaN moved into the gradient:
    d mass/dE is infinite where the square is 0. Here value and gradient are finite for all electrons in both
    precisions; in double precision the mass is that of the file.
    """
    electrons = ak.flatten(events.Electron)
    pt, eta, phi, mass = (ak.to_numpy(electrons[name]).astype(np.float64) for name in ("pt", "eta", "phi", "mass"))
    energy = jnp.asarray(np.hypot(pt * np.cosh(eta), mass), precision)
    px, py, pz = (jnp.asarray(p, precision) for p in (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)))

    @jax.jit
    def masses(energy):
        return invariant_mass(px, py, pz, energy)

    value = masses(energy)
    gradient = jax.grad(lambda e: masses(e).sum())(energy)
    assert len(value) == 69
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))
    square = np.asarray(energy) ** 2 - np.asarray(px) ** 2 - np.asarray(py) ** 2 - np.asarray(pz) ** 2
    if precision == jnp.float32:
        assert (square < 0).any()  # the file has the case
    else:
        np.testing.assert_allclose(value, np.abs(mass), atol=1e-6)
        inside = np.asarray(value) > 1e-3
        np.testing.assert_allclose(gradient[inside], energy[inside] / value[inside], rtol=1e-12)


@pytest.fixture(scope="module")
def histogram(groups):
    """Events with two jets above the cut, in bins of HT, and the derivative by the cut, of a custom kernel."""
    counts = hard_yields(EventAnalysis(SELECTION, HT, Layout(datasets=1, kinematics=1)))
    events = Events(groups=groups, edges={"dijet": jnp.asarray(EDGES)})

    @jax.jit
    def value_and_slope(cut, events):
        def of(cut):
            return counts({"jet_pt": cut}, {"jet_pt": jnp.float64(BANDWIDTH)}, events)[0, 0, :, 0]

        return jax.jvp(of, (cut,), (jnp.ones_like(cut),))

    value, slope = value_and_slope(jnp.float64(CUT), events)
    return np.asarray(value), np.asarray(slope)


def ht_of(jets):
    """HT if there are two, else None."""
    return sum(jets) if len(jets) >= 2 else None


def test_a_custom_kernel_under_grad_and_jit(histogram, events):
    """A kernel of our own with a derivative of our own: hard counts whose slope is the flux through the cut.

    The truth is a plain loop: every jet near the cut is put in and taken out. Upstream: a kernel made with
    `numba.vectorize` (awkward #2603) has a value, and its gradient fails with TracerArrayConversionError.
    """
    value, slope = histogram
    counts, flux = np.zeros(len(EDGES) - 1), np.zeros(len(EDGES) - 1)

    def add(into, jets, weight):
        total = ht_of(jets)
        if total is not None and EDGES[0] <= total < EDGES[-1]:
            into[np.searchsorted(EDGES, total, side="right") - 1] += weight

    for jets in ak.to_list(events.Jet.pt):
        add(counts, [pt for pt in jets if pt > CUT], 1.0)
        for number, near in enumerate(jets):
            distance = (near - CUT) / BANDWIDTH
            if abs(distance) < 1:
                others = [pt for other, pt in enumerate(jets) if other != number and pt > CUT]
                density = 0.75 * (1 - distance**2) / BANDWIDTH
                add(flux, [*others, near], -density)
                add(flux, others, density)
    assert counts.sum() > 50
    np.testing.assert_array_equal(value, counts)
    np.testing.assert_allclose(slope, flux, rtol=1e-5, atol=1e-6)
    assert np.abs(slope).sum() > 1


@pytest.mark.parametrize(
    "coarser",
    [{"groups": [1, 3, 4, 8]}, {"edges": [0.0, 50.0, 200.0, 400.0, 800.0]}, {"factor": 4}],
    ids=["groups", "edges", "factor"],
)
def test_rebinning_of_the_output_histograms(histogram, events, coarser):
    """The histogram, and its derivative, rebinned by hist; the truth is filled in the coarse bins at once.

    Upstream: rebinning by groups and edges has come (it was "in progress"). A traced array still cannot be put into a
    histogram (TracerArrayConversionError), so histograms stand outside the differentiated function.
    """
    value, slope = histogram
    made = hist.Hist(hist.axis.Variable(EDGES, name="ht"), storage=hist.storage.Double())
    made.view()[:] = value
    rebin = hist.rebin(**coarser) if "factor" not in coarser else hist.rebin(coarser["factor"])
    rebinned = made[::rebin]

    selected = events.Jet.pt[events.Jet.pt > np.float32(CUT)]
    totals = ak.to_numpy(ak.sum(ak.values_astype(selected, np.float64), axis=1)[ak.num(selected) >= 2])
    at_once = hist.Hist(hist.axis.Variable(rebinned.axes[0].edges, name="ht"), storage=hist.storage.Double()).fill(
        totals
    )
    np.testing.assert_array_equal(rebinned.view(), at_once.view())

    made.view()[:] = slope
    np.testing.assert_allclose(made[::rebin].sum(), slope.sum(), rtol=1e-12)
    edges = np.searchsorted(EDGES, rebinned.axes[0].edges)
    np.testing.assert_allclose(made[::rebin].view(), np.add.reduceat(slope, edges[:-1]), rtol=1e-12)
