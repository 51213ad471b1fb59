"""Every key of a config is explained by the models that check it."""

import pytest
from pipeline.config import ConfigError, explained
from pipeline.config.explained import models_in
from pipeline.config.run import Config
from pipeline.optimize import main


def test_the_command_explains_a_key_with_its_unit(capsys):
    assert main(["--explain", "cuts.jet_pt.bandwidth"]) == 0
    text = capsys.readouterr().out
    assert "cuts.jet_pt.bandwidth  (number; default: none; unit: that of the threshold)" in text
    assert "the width, in the threshold's own unit, of the kernel" in text


def test_a_section_lists_its_keys():
    text = explained("optimiser")
    assert "steps  (whole number; default: 60)" in text
    assert "decay  (constant | linear | exponential | cosine; default: cosine)" in text


def test_a_misspelt_key_offers_the_nearest():
    with pytest.raises(ConfigError, match="no key 'startt'; did you mean 'start'"):
        explained("regions.SR.bins.startt")


def keys(model=Config, place=()):
    """Every key that there is, `x` in the place of names of one's own."""
    for name, field in model.model_fields.items():
        yield ".".join((*place, name))
        inside = next(models_in(field.annotation), None)
        if inside is not None:
            named = "dict" in str(field.annotation)
            yield from keys(inside, (*place, name, *(["x"] if named else [])))


@pytest.mark.parametrize("key", sorted(set(keys())))
def test_every_key_has_words_and_a_type(key):
    assert len(explained(key)) > 30
    assert "typing." not in explained(key)
    assert "<" not in explained(key).replace("<cut>", "").replace("<region>", "").replace("x < threshold", "")
