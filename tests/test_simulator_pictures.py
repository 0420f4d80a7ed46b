"""Pictures that simulated cameras take."""

import io

from PIL import Image

from dsmgateway.simulator.pictures import draw_picture


def test_pictures_are_jpegs_of_the_size_that_cameras_send():
    """Each picture decodes, has about the size of a real one, and differs from the others."""
    pictures = [draw_picture(["Camera 1", f"Picture {number}"], number) for number in range(4)]
    for data in pictures:
        image = Image.open(io.BytesIO(data))
        image.load()
        assert (image.format, image.size) == ("JPEG", (1280, 720))
        assert data.endswith(b"\xff\xd9")
        assert 25_000 < len(data) <= 60_000
    assert len(set(pictures)) == 4


def test_same_seed_draws_the_same_picture():
    """A picture can be drawn again."""
    assert draw_picture(["a"], 1) == draw_picture(["a"], 1)
