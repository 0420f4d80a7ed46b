"""JSON of a device is kept, and never harms."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.metadata_json import DEEPEST, amount, begins_like_document, document_of, integer, member, number, text


@pytest.mark.parametrize(
    ("raw", "document"),
    [
        (b"{}", {}),
        (b' \n{"a": 1}\r\n\0\0', {"a": 1}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": [NaN, Infinity, -Infinity, 1e999, -1e999]}', {"a": [None] * 5}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"\\ud800": ["x\\udfffy"]}', {"\ufffd": ["x\ufffdy"]}),
        (b'{"a": "\xff\xe2\x82"}', {"a": "\ufffd\ufffd"}),
        (b'{"a": 18446744073709551615}', {"a": 2**64 - 1}),
        (b'{"a": -9223372036854775808}', {"a": -(2**63)}),
        (b'{"a": 184467440737095516150}', {"a": "184467440737095516150"}),
        (b'{"a": ' + b"9" * 5000 + b"}", {"a": "9" * 5000}),
    ],
)
def test_what_becomes_of_a_document(raw: bytes, document: object) -> None:
    """Whatever JSON cannot say everywhere is replaced."""
    assert document_of(raw) == document


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"{", b"}", b"[]", b"1", b"null", b"{}{}", b"{} x", b'{"a"}', b"\xef\xbb\xbf{}", b'{"a":\x07 1}'],
)
def test_what_is_no_document(raw: bytes) -> None:
    """Only an object that is all there is counts."""
    assert document_of(raw) is None


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [DEEPEST + 1, 500, 100_000])
def test_hostile_depth(brackets: tuple[str, str], depth: int) -> None:
    """What is nested too deep is cut off or refused, and can be written either way."""
    opening, closing = brackets
    document = document_of(f'{{"a":{opening * depth}1{closing * depth}, "b": 2}}'.encode())
    if depth == 100_000:
        assert document is None
    else:
        assert document is not None and document["b"] == 2
        assert len(json.dumps(document)) < 200


def test_the_deepest_that_is_kept() -> None:
    """The object itself counts as one level."""
    inner = "[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1)
    assert document_of(f'{{"a":{inner}}}'.encode()) == {"a": json.loads(inner)}


LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e300, 1e300) | st.text(max_size=5)
NESTED = LEAF
for _level in range(3):
    NESTED = LEAF | st.lists(NESTED, max_size=3) | st.dictionaries(st.text(max_size=5), NESTED, max_size=3)


@given(st.dictionaries(st.text(), NESTED))
def test_what_is_harmless_comes_as_it_was(document: dict[str, object]) -> None:
    """Objects within the bounds are not changed."""
    assert document_of(json.dumps(document).encode()) == document
    assert document_of(json.dumps(document, ensure_ascii=False).encode()) == document


def test_begins_like_document() -> None:
    """Space before it does not matter; what follows does not either."""
    assert begins_like_document(b" \t{\xff")
    assert not begins_like_document(b"[{")


def test_member() -> None:
    """Whatever is missing on the way is None."""
    document = {"a": {"b": 1}, "c": [0]}
    assert member(document, "a", "b") == 1
    assert [member(document, *names) for names in (("x",), ("a", "x"), ("c", "0"), ("a", "b", "x"))] == [None] * 4


@pytest.mark.parametrize(
    ("value", "as_number", "as_amount", "as_integer", "as_text"),
    [
        (1, 1, 1, 1, None),
        (-1, -1, None, -1, None),
        (1.5, 1.5, 1.5, None, None),
        (2.0, 2, 2, 2, None),
        (1e300, 1e300, 1e300, None, None),
        (True, None, None, None, None),
        (None, None, None, None, None),
        ([], None, None, None, None),
        ("1", None, None, None, "1"),
        (" a b\0", None, None, None, "a b"),
        (" \0", None, None, None, None),
    ],
)
def test_values(value: object, as_number: object, as_amount: object, as_integer: object, as_text: object) -> None:
    """A value is what its type says, nothing is converted but whole floats."""
    assert (number(value), amount(value), integer(value), text(value)) == (as_number, as_amount, as_integer, as_text)
