"""Opening a wide TTree for a few of its branches.

Most of the time that a NanoAOD file of a hundred megabytes takes is spent before its first event: uproot makes Python
objects of all branches (measured: 0.24 s for 947 of them, 0.03 s to read and skim 100,000 events). Here the branches
that nobody asked for are stepped over. A branch says how many bytes it has, and its name stands near its start.

Two things in a branch may be needed by a later one. A class is named where it is first used and by its position from
then on; the names in a branch that is stepped over are therefore looked up. And a list refers to the leaf that counts
it: ask for the counter, too. What cannot be read in this way shows by `is_complete`, and is then opened in full.
"""

import re
import struct
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import uproot
from uproot.const import kMapOffset
from uproot.deserialization import read_object_any
from uproot.models.TObjArray import Model_TObjArray
from uproot.models.TObject import Model_TObject

__all__ = ["classes_for", "is_complete"]

_HEADER = struct.Struct(">II")  # of an object in an array: number of bytes, class
_SIZE = struct.Struct(">ii")
_HAS_BYTE_COUNT = 0x40000000
_IS_CLASS = 0x80000000
_NEW_CLASS = 0xFFFFFFFF
_BRANCH = b"TBranch\0"
_NAMED_CLASS = re.compile(rb"\xff\xff\xff\xff(T[A-Za-z0-9_:]+)\x00")
# Byte counts and versions of the branch and its TNamed; the version, number and flags of its TObject.
_BEFORE_NAME = struct.Struct(">IHIHHII")
_IS_REFERENCED = 1 << 4


@lru_cache(maxsize=64)
def classes_for(names: frozenset[str]) -> Mapping[str, Any]:
    """The argument `custom_classes` of `uproot.open` with which a TTree has these branches only.

    Args:
        names: Of the branches, counters included.
    """
    # uproot reads the name of the C++ class off the name of the Python class.
    array = type("Model_TObjArray", (_ArrayOfBranches,), {"wanted": names})
    return {**uproot.classes, "TObjArray": array}


def is_complete(tree: Any, branches: Collection[str]) -> bool:
    """Whether a tree that was opened in this way has all that was asked for, lists with their counters.

    Args:
        tree: A TTree, or an RNTuple, of which nothing is left out.
        branches: Names that must be there.
    """
    if not isinstance(tree, uproot.TTree):
        return True
    return set(tree.keys()).issuperset(branches) and not any(_lacks_counter(tree[name]) for name in branches)


def _lacks_counter(branch: Any) -> bool:
    """A leaf is called `Jet_pt[nJet]` if it is a list; without its counter it would be read as numbers."""
    is_list = any("[" in leaf.member("fTitle") for leaf in branch.member("fLeaves"))
    return is_list and branch.count_branch is None


class _ArrayOfBranches(Model_TObjArray):  # type: ignore[misc]  # uproot has no types
    """ROOT's array of objects, as uproot reads it, without the TBranches that are not wanted."""

    wanted: frozenset[str] = frozenset()

    def read_members(self, chunk: Any, cursor: Any, context: dict[str, Any], file: Any) -> None:
        base = Model_TObject.read(chunk, cursor, context, file, self._file, self._parent, concrete=self.concrete)
        self._bases.append(base)
        self._members["fName"] = cursor.string(chunk, context)
        size, self._members["fLowerBound"] = cursor.fields(chunk, _SIZE, context)
        self._data = []
        branch = file.class_named("TBranch")
        for _ in range(size):
            if not self._steps_over(branch, chunk, cursor, context, file):
                self._data.append(read_object_any(chunk, cursor, context, file, self._file, self._parent))
        self._members["fSize"] = len(self._data)

    def _steps_over(self, branch: Any, chunk: Any, cursor: Any, context: dict[str, Any], file: Any) -> bool:
        """Move behind the next object if it is a branch that is not wanted."""
        try:
            length, tag = cursor.fields(chunk, _HEADER, context, move=False)
        except uproot.DeserializationError:  # the bytes end here: what is left is shorter than a branch
            return False
        if not (length & _HAS_BYTE_COUNT and tag & _IS_CLASS):
            return False
        stop = cursor.index + (length & ~_HAS_BYTE_COUNT) + 4
        content = chunk.get(cursor.index, stop, cursor, context).tobytes()
        here = _HEADER.size
        if tag == _NEW_CLASS and content.startswith(_BRANCH, here):
            here += len(_BRANCH)
        elif cursor.refs.get(tag & ~_IS_CLASS) is not branch:
            return False
        if _name(content, here) in self.wanted:
            return False
        for named in _NAMED_CLASS.finditer(content):
            position = cursor.displacement() + named.start() + kMapOffset
            cursor.refs[position] = file.class_named(named[1].decode())
        cursor.move_to(stop)
        return True


def _name(content: bytes, here: int) -> str:
    """Name of a branch that starts at a place in these bytes."""
    *_, flags = _BEFORE_NAME.unpack_from(content, here)
    here += _BEFORE_NAME.size + (2 if flags & _IS_REFERENCED else 0)
    length, here = content[here], here + 1
    if length == 255:
        length, here = int.from_bytes(content[here : here + 4]), here + 4
    return content[here : here + length].decode(errors="replace")
