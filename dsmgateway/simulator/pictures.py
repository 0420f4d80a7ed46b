"""Real JPEGs for simulated cameras: a driver in the cab, as an infrared camera sees him, with lines of text.

Needs Pillow (the extra ``demo``), which is imported only when a picture is drawn.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from typing import Any

from dsmgateway.errors import ConfigError

#: Width and height in pixels.
_SIZE = (1280, 720)
#: Size of the result in bytes: what cameras of this kind send.
_LARGEST = 60_000
_QUALITIES = (88, 80, 72, 64, 56, 48, 40, 30)
#: Shares of noise that give files of different sizes within that.
_NOISE = (0.04, 0.12)


def draw_picture(lines: Sequence[str], seed: int) -> bytes:
    """Return a JPEG of about 25 to 60 KB that shows ``lines``; the same ``seed`` gives the same picture.

    Raises `ConfigError` where Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ConfigError("pictures are drawn with Pillow: pip install 'dsmgateway[demo]'") from error
    chance = random.Random(f"picture {seed}")
    width, height = _SIZE
    image = Image.linear_gradient("L").resize(_SIZE).point([40 + level // 3 for level in range(256)])
    _draw_driver(ImageDraw.Draw(image), chance)
    noise = Image.frombytes("L", (width // 4, height // 4), chance.randbytes(width * height // 16))
    image = Image.blend(image, noise.resize(_SIZE), chance.uniform(*_NOISE))
    _write(ImageDraw.Draw(image), lines, ImageFont.load_default(44))
    return _encode(image)


def _draw_driver(draw: Any, chance: random.Random) -> None:
    """Draw window, seat, shoulders, head and belt, a little different each time."""
    width, height = _SIZE
    x, y = width // 2 + chance.randint(-120, 120), height // 2 + chance.randint(-50, 30)
    draw.polygon([(0, 80), (380, 40), (330, 420), (0, 460)], fill=chance.randint(150, 200))
    draw.rounded_rectangle((x - 190, y - 190, x + 190, height), 60, fill=45)
    draw.ellipse((x - 330, y + 150, x + 330, height + 400), fill=chance.randint(90, 150))
    draw.rectangle((x - 50, y + 80, x + 50, y + 190), fill=165)
    draw.ellipse((x - 115, y - 160, x + 115, y + 140), fill=185)
    draw.chord((x - 118, y - 170, x + 118, y + 40), 180, 360, fill=30)
    lid = chance.randint(2, 14)
    for eye in (x - 50, x + 50):
        draw.ellipse((eye - 20, y - 12 - lid, eye + 20, y - 12 + lid), fill=240)
        draw.ellipse((eye - 7, y - 12 - min(lid, 7), eye + 7, y - 12 + min(lid, 7)), fill=15)
    mouth = chance.randint(3, 26)
    draw.ellipse((x - 38, y + 75 - mouth, x + 38, y + 75 + mouth), fill=70)
    draw.line([(x - 230, y + 190), (x + 170, height)], fill=35, width=34)


def _write(draw: Any, lines: Sequence[str], font: Any) -> None:
    for number, line in enumerate(lines):
        draw.text((30, 24 + 56 * number), line, font=font, fill=255, stroke_width=3, stroke_fill=0)


def _encode(image: Any) -> bytes:
    """Return the image as a JPEG of the best quality that is small enough."""
    data = b""
    for quality in _QUALITIES:
        target = io.BytesIO()
        image.save(target, "JPEG", quality=quality)
        data = target.getvalue()
        if len(data) <= _LARGEST:
            break
    return data
