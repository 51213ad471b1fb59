"""What is degenerate is said in words, with its place."""

import dataclasses

import jax.numpy as jnp
import pytest
from pipeline.inference.histfactory import diagnose, from_pyhf

from reference.workspaces import EVERYTHING, HELLO_WORLD

# pyhf 0.7 validates with a part of jsonschema that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")


def with_background(values):
    structure, numbers, _ = from_pyhf(HELLO_WORLD)
    row = structure.samples.index("background")
    return structure, dataclasses.replace(numbers, nominal=numbers.nominal.at[row].set(jnp.array(values)))


def test_a_sound_model_has_no_complaint():
    assert diagnose(*with_background([50.0, 52.0])) == ()


def test_degenerate_bins_are_named():
    sentence, *_ = diagnose(*with_background([50.0, 0.0]))
    assert sentence.startswith("channel 'singlechannel', bin 1 expects 11 events of signal and 0 of background")
    sentences = diagnose(*with_background([-20.0, 52.0]))
    assert "channel 'singlechannel', bin 0 has a negative expectation (-8): left out of Asimov data." in sentences
    start = "channel 'singlechannel', bin 0 has a negative expectation without signal (-3)"
    assert any(sentence.startswith(start) for sentence in diagnose(*with_background([-3.0, 52.0])))
    structure, numbers = with_background([0.0, 0.0])
    (sentence,) = diagnose(structure, dataclasses.replace(numbers, nominal=jnp.zeros_like(numbers.nominal)))
    assert sentence == "channel 'singlechannel' is empty: it says nothing."


def test_factors_and_numbers_that_are_none():
    structure, numbers, _ = from_pyhf(EVERYTHING)
    broken = dataclasses.replace(
        numbers,
        normsys_lo=numbers.normsys_lo - 0.93,
        staterror=numbers.staterror.at[2, 3].set(jnp.nan),
    )
    sentences = diagnose(structure, broken)
    assert "staterror[2, 3] (channel 'SR', bin 1) is not a finite number: no fit converges." in sentences
    assert any("'top': the factor 'lo' of normsys 'scale' is -0.08, not positive" in one for one in sentences)
