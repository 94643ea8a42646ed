"""Durable files and manifests: nothing counts before it is whole, whatever a file holds."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import StorageError
from trainer.storage import durable
from trainer.storage.manifest import read_manifest, seal, write_manifest

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=10)
ENTRY = st.fixed_dictionaries({"sha256": ANY_JSON | st.just("0" * 64), "bytes": ANY_JSON | st.just(3)})
ENTRIES = st.dictionaries(st.sampled_from(["a", "b", "../a", "", "a\0", "x" * 300]) | st.text(max_size=5),
                          ANY_JSON | ENTRY, max_size=3)


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "sealed"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    seal(folder, {"step": 3})
    return folder


def test_what_was_sealed_is_read(sealed):
    manifest, fault = read_manifest(sealed)
    assert not fault and manifest["step"] == 3 and manifest["files"]["a"]["bytes"] == 3


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.binary(max_size=80), ANY_JSON.map(lambda value: json.dumps(value).encode()),
                      st.just(b"[" * 100_000), st.just(b"{\"a\":" * 50_000)))
def test_no_other_bytes_are_a_manifest(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any")
    (folder / "manifest.json").write_bytes(text)
    manifest, fault = read_manifest(folder)
    assert manifest is None and fault


@settings(max_examples=300, deadline=None)
@given(listed=ENTRIES | ANY_JSON, more=st.dictionaries(st.text(max_size=5), ANY_JSON, max_size=3))
def test_a_manifest_that_hashes_right_and_lists_anything(tmp_path_factory, listed, more):
    """As a program with a defect could write one: no traceback, and sound only if every file is what it says."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "a").write_bytes(b"abc")
    try:
        write_manifest(folder, {**more, "files": listed})
    except (ValueError, TypeError):  # what JSON can't hold can't be there
        return
    manifest, fault = read_manifest(folder)
    assert bool(manifest) != bool(fault)
    if manifest:
        assert listed == {} or set(listed) <= {"a"}


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), length=st.none() | st.integers(0, 400))
def test_any_flipped_bit_and_any_cut_is_found(tmp_path_factory, place, bit, length):
    folder = tmp_path_factory.mktemp("flip")
    (folder / "a").write_bytes(bytes(range(256)))
    seal(folder, {"step": 3, "evaluation": {"accuracy": 0.5}})
    for name in ("a", "manifest.json"):
        whole = (folder / name).read_bytes()
        damaged = bytearray(whole)
        damaged[place % len(whole)] ^= 1 << bit
        for content in (bytes(damaged), whole[:length] if length is not None and length < len(whole) else b""):
            (folder / name).write_bytes(content)
            manifest, fault = read_manifest(folder)
            # JSON has spaces between its words that may turn into other spaces: then it says the same.
            assert fault or (name == "manifest.json" and json.loads(content) == json.loads(whole))
        (folder / name).write_bytes(whole)


def test_room_is_looked_for(tmp_path):
    durable.require_room(tmp_path / "not/there/yet", 1000, "a thing")
    with pytest.raises(StorageError, match="no room for a thing: it needs 1,000,000,000,000.0 MB") as caught:
        durable.require_room(tmp_path, 10**18, "a thing")
    assert "make room" in caught.value.fix


def test_what_is_written_durably_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    durable.write_durably(path, "one")
    durable.write_durably(path, "two")
    assert path.read_text() == "two" and os.listdir(tmp_path) == ["a.json"]
