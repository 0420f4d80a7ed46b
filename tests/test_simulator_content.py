"""What is inside simulated files."""

from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.simulator.content import BytesContent, RandomPool, whole

POOL = RandomPool(5)


@given(size=st.integers(1, 5000), name=st.text(max_size=8), cuts=st.lists(st.integers(1, 1500), min_size=1))
def test_reading_in_pieces_gives_the_whole(size, name, cuts):
    """However a file is read, it is the same file."""
    content = POOL.content(name, size)
    data, number = b"", 0
    while piece := content.read(len(data), cuts[number % len(cuts)]):
        data += piece
        number += 1
    assert data == whole(content)
    assert len(data) == size


def test_content_is_the_same_for_the_same_seed_only():
    """A run can be repeated; other names and seeds give other files."""
    content = whole(POOL.content("1 0", 4000))
    assert content == whole(RandomPool(5).content("1 0", 4000))
    assert content != whole(RandomPool(6).content("1 0", 4000))
    assert content != whole(POOL.content("1 1", 4000))


def test_content_longer_than_the_pool_goes_around():
    """A file of several MiB has all its bytes, and packets a pool's length apart differ from those in step."""
    content = POOL.content("long", 3_000_000)
    data = whole(content)
    assert len(data) == 3_000_000
    assert data[1024:2048] != data[1024 + 1024 * 1024 : 2048 + 1024 * 1024]
    assert content.read(2_999_990, 1024) == data[2_999_990:]


def test_bytes_content_is_the_bytes():
    """A picture is offered as it is."""
    content = BytesContent(b"picture")
    assert (content.size, content.read(2, 3), whole(content)) == (7, b"ctu", b"picture")
