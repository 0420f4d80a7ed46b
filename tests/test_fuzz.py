"""Every reader of bytes on bytes that nobody has thought of; what has to hold is in `fuzzing.py`.

The short form replays the corpus and the same mutations of it each time. The long one hunts for ten minutes in all,
guided by coverage where atheris is installed (`hunt.py`). What is found belongs into the corpus, with what mends it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzzing import CORPUS, TARGETS, corpus, mutated
from hunt import hunt
from soak import SOAK

#: Mutations of its corpus that a target takes in every run: as many as half a second has room for.
MUTATIONS = {"decoder": 60, "session": 60, "captures": 80}
MOST_MUTATIONS = 200
#: How long the long form hunts, for all targets together.
HUNT_S = 600.0
#: Most bytes that are kept for all targets: what is more is not minimised.
MOST_CORPUS_BYTES = 16 << 10

EVERY_TARGET = pytest.mark.parametrize("name", TARGETS)


def how_to_replay(name: str, file: Path) -> str:
    """What to do about a file that breaks a property."""
    return f"replay it with: python tests/fuzzing.py {name} {file}\nonce mended, keep it in {CORPUS / name}"


def give(name: str, file: Path) -> None:
    """Give a file to a target; what breaks says how to have it again."""
    try:
        TARGETS[name](file.read_bytes())
    except Exception as error:
        error.add_note(how_to_replay(name, file))
        raise


@EVERY_TARGET
def test_what_is_kept_breaks_nothing_any_more(name: str) -> None:
    for file in sorted((CORPUS / name).iterdir()):
        give(name, file)


@pytest.mark.soak
@EVERY_TARGET
def test_nothing_is_found_that_breaks_a_property(name: str, tmp_path: Path) -> None:
    if SOAK:
        result = hunt(name, HUNT_S * SOAK / len(TARGETS), tmp_path)
        print(f"\n{name}: {result}")
        assert result.found is None, f"{result.said}\n{how_to_replay(name, result.found)}"
        return
    seeds, chance = corpus(name), random.Random(name)
    for _ in range(MUTATIONS.get(name, MOST_MUTATIONS)):
        (tmp_path / name).write_bytes(mutated(seeds, chance))
        give(name, tmp_path / name)


def test_the_corpus_is_of_these_targets_and_small() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(corpus(name) for name in TARGETS)
    assert sum(len(data) for name in TARGETS for data in corpus(name)) <= MOST_CORPUS_BYTES
