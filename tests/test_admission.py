"""Which devices may come in, and the list of them that an operator writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.admission import APPROVE, KNOWN, MAX_SIGHTINGS, OPEN, Admission, Roll, Sighting
from dsmgateway.errors import ConfigError
from dsmgateway.known_devices import MAX_LIST_BYTES, is_imei, parse_known_devices

GOOD, OTHER, BAD_DIGIT = "356917000000013", "356917000000021", "356917000000014"


# -- devices


def test_open_takes_any_device() -> None:
    assert Admission().refusal(BAD_DIGIT, "192.0.2.1", 1) == ""


def test_open_can_ask_for_the_check_digit() -> None:
    admission = Admission(OPEN, check_digit=True)
    assert admission.refusal(GOOD, "192.0.2.1", 1) == ""
    assert admission.refusal(BAD_DIGIT, "192.0.2.1", 1) == "the check digit of the IMEI is wrong"
    assert admission.take_sightings() == {}


def test_known_takes_those_of_the_list_as_it_is_now() -> None:
    admission = Admission(KNOWN, check_digit=True)
    assert admission.refusal(GOOD, "192.0.2.1", 1) == "not among the known devices"
    admission.known = {GOOD: "", BAD_DIGIT: "named, so not checked"}
    assert (admission.refusal(GOOD, "", 1), admission.refusal(BAD_DIGIT, "", 1)) == ("", "")
    admission.roll = Roll(approved=frozenset({OTHER}))
    assert admission.refusal(OTHER, "", 1) == "not among the known devices"
    assert admission.take_sightings() == {}


def test_approve_takes_the_approved_and_those_of_the_list_and_notes_the_others() -> None:
    admission = Admission(APPROVE)
    admission.roll, admission.known = Roll(approved=frozenset({GOOD})), {OTHER: ""}
    assert (admission.refusal(GOOD, "", 1), admission.refusal(OTHER, "", 1)) == ("", "")
    assert admission.refusal(BAD_DIGIT, "192.0.2.1", 5) == "not approved yet"
    assert admission.refusal(BAD_DIGIT, "192.0.2.2", 7) == "not approved yet"
    assert admission.take_sightings() == {BAD_DIGIT: Sighting(5, 7, "192.0.2.2", 2)}
    assert admission.take_sightings() == {}


def test_approve_does_not_note_an_imei_that_cannot_be_one() -> None:
    admission = Admission(APPROVE, check_digit=True)
    assert admission.refusal(BAD_DIGIT, "", 1) == "the check digit of the IMEI is wrong"
    assert admission.refusal(GOOD, "", 1) == "not approved yet"
    assert list(admission.take_sightings()) == [GOOD]


@pytest.mark.parametrize("mode", [OPEN, KNOWN, APPROVE])
def test_blocked_goes_before_everything(mode: str) -> None:
    admission = Admission(mode)
    admission.known, admission.roll = {GOOD: ""}, Roll(frozenset({GOOD}), frozenset({GOOD}))
    assert admission.refusal(GOOD, "", 1) == "blocked"
    assert list(admission.take_sightings()) == [GOOD]


def test_what_is_noted_between_two_looks_is_bounded() -> None:
    admission = Admission(APPROVE)
    for number in range(MAX_SIGHTINGS + 10):
        admission.refusal(f"{number:015d}", "", 1)
    assert admission.refusal(f"{0:015d}", "", 2) == "not approved yet"
    sightings = admission.take_sightings()
    assert len(sightings) == MAX_SIGHTINGS
    assert sightings[f"{0:015d}"].count == 2


# -- the list


def test_a_list_has_imeis_names_comments_and_blank_lines() -> None:
    text = (
        "# our fleet\n356917000000013\n\n  356917000000021\tBus#12, Köln  # spare \r\n350000000000006 #no name\n\t#\n"
    )
    assert parse_known_devices(text.encode()) == {
        "356917000000013": "",
        "356917000000021": "Bus#12, Köln",
        "350000000000006": "",
    }


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_may_end_as_any_editor_ends_it(end: bytes) -> None:
    assert parse_known_devices(end.join([b"356917000000013 Bus 12", b"", b"356917000000021"])) == {
        "356917000000013": "Bus 12",
        "356917000000021": "",
    }
    with pytest.raises(ConfigError, match=r"^line 3: "):
        parse_known_devices(end.join([b"356917000000013", b"#", b"x", b""]))


def test_a_list_may_begin_with_a_mark_of_its_encoding_and_be_empty() -> None:
    assert parse_known_devices(b"\xef\xbb\xbf356917000000013") == {"356917000000013": ""}
    assert parse_known_devices(b"") == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"356917000000013\n35691700000002\n", "line 2: '35691700000002' is not an IMEI of 15 digits"),
        (b"imei,name\n", "line 1: 'imei,name' is not an IMEI of 15 digits"),
        ("٣٥٦٩١٧٠٠٠٠٠٠٠١٣".encode(), "line 1: '٣٥٦٩١٧٠٠٠٠٠٠٠١٣' is not an IMEI of 15 digits"),
        (b"\n\n\x00\n", r"line 3: '\x00' is not an IMEI of 15 digits"),
        (b"x" * 100, f"line 1: '{'x' * 40}' is not an IMEI of 15 digits"),
        (b"356917000000013 \xff\n", "line 1: not UTF-8"),
        (b"356917000000013 a\n#\n356917000000013 b\n", "line 3: 356917000000013 is there already, in line 1"),
        (b"#" * (MAX_LIST_BYTES + 1), "larger than 16 MiB, so no list of devices"),
    ],
    ids=["short", "head", "digits", "nul", "long", "encoding", "twice", "size"],
)
def test_a_wrong_line_is_told_with_its_number_in_one_line(content: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_known_devices(content)
    assert str(caught.value) == problem


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_list_or_refused_in_one_line(content: bytes) -> None:
    try:
        names = parse_known_devices(content)
    except ConfigError as error:
        assert str(error).isprintable()
        assert str(error).startswith("line ")
    else:
        assert all(map(is_imei, names))
        assert all(name == name.strip() and "\n" not in name for name in names.values())


_NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="#"), max_size=20)


@given(st.dictionaries(st.integers(1, 10**15 - 1).map("{:015d}".format), _NAMES, max_size=20))
def test_a_list_is_read_back_as_it_was_written(names: dict[str, str]) -> None:
    text = "".join(f"{imei} {name}\n" for imei, name in names.items())
    assert parse_known_devices(text.encode()) == names
