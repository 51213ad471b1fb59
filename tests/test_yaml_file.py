"""YAML: the values of PyYAML's safe loader, and no key twice."""

import pytest
import yaml
from pipeline.errors import PipelineError
from pipeline.ingest.manifest import default_manifest
from pipeline.yaml_file import YamlError, parsed_yaml


@pytest.mark.parametrize(
    "text", ["", "3", "[1, {a: 2}]", "a: 1\nb: {a: 1, c: [{a: 1}, {a: 2}]}", "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}"]
)
def test_values_are_those_of_the_safe_loader(text):
    assert parsed_yaml(text) == parsed_yaml(text.encode()) == yaml.safe_load(text)


def test_the_manifest_reads_the_same():
    content = default_manifest().read_bytes()
    assert parsed_yaml(content) == yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.mark.parametrize(
    ("text", "key", "first", "second"),
    [
        ("a: 1\nb: 2\na: 3", "a", 1, 3),
        ("x:\n  - {}\n  - {b: 1, b: 1}", "b", 3, 3),
        ("datasets:\n  p:\n    f: 1\n  q: 2\n  p:\n    f: 2", "p", 2, 5),
        ("1: a\n1: b", "1", 1, 2),
    ],
)
def test_a_key_that_is_stated_twice_is_refused(text, key, first, second):
    message = rf"line {second}: the key '{key}' is stated twice \(first in line {first}\); keep one of them"
    with pytest.raises(YamlError, match=message) as raised:
        parsed_yaml(text)
    assert isinstance(raised.value, PipelineError)


def test_an_override_of_a_merged_key_and_a_chain_of_merges_are_fine():
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}"
    assert parsed_yaml(text)["c"] == {"x": 2, "y": 3}


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t", "!!python/object:os.system {}"])
def test_bad_yaml_is_a_sentence(text):
    with pytest.raises(YamlError, match=r"not valid YAML: .* line ., column") as raised:
        parsed_yaml(text)
    assert "\n" not in str(raised.value)
