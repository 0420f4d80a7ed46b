"""The page on what is known of a file: its sidecar, and in it what the camera said, from the code's own tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from metadata_words import CHOICE, DOUBTS, EXAMPLES, NAMES, OTHER_JSON, RECEIVED_S, SIDECAR

from dsmgateway.metadata_layouts import (
    ADAS_TRIGGERS,
    DUALCAM_FILE_TYPES,
    DUALCAM_TRIGGERS,
    EVENT_BITS,
    FILE_TYPES,
    PARTS,
    TRIGGERS,
    FileType,
    Layout,
)


def page(made: str) -> str:
    """Return the page; ``made`` is the line that says who wrote it."""
    shown = {layout: example.read().to_json(RECEIVED_S) for layout, example in EXAMPLES.items()}
    return f"""# Metadata

{made}

Beside every stored file is its sidecar, a `.json` of the same name, with what is known of the file. What the camera
itself said about it (METADATA) is in there under `metadata`. Metadata is never a reason not to take a file. How it is
asked for is on the page on [the protocol](protocol.md#metadata_request).

{_sidecar()}## What the camera said

`metadata` has the same names for every family; a name is missing where the layout does not have it or the camera did
not say anything that can be true. Layout `json` is that of every family from protocol 6 on; up to protocol 5 the DSM
and ADAS cameras have layouts of these names, and `dualcam` is that of DualCam.

{_table(("name", "unit", "meaning", "layouts"), [_name(name, shown) for name in NAMES])}

{_layouts()}## File types

{_numbers({"DSM, ADAS": _named(FILE_TYPES), "DualCam": _named(DUALCAM_FILE_TYPES)})}

## Triggers

{_numbers({"DSM": TRIGGERS, "ADAS": ADAS_TRIGGERS, "DualCam": DUALCAM_TRIGGERS})}

A path of DSM or ADAS tells whose table counts; without one the layout does. A number without a name is `unknown`.

## Events

A bit without a name is `bit_N`.

{_table(("bit", "event"), [(str(bit), f"`{name}`") for bit, name in enumerate(EVENT_BITS)])}

## How sure this is

{_table(("family", "source"), DOUBTS)}

## Examples

All were received at {RECEIVED_S} (seconds since 1970).

{"".join(_example(layout, known) for layout, known in shown.items()).rstrip()}
"""


def _sidecar() -> str:
    return f"""## The sidecar

{_table(("name", "unit", "meaning"), [(f"`{name}`", *SIDECAR[name]) for name in SIDECAR])}

`camera` and `kind` come twice. Trust these: they are by the path or identifier under which the file was delivered, and
so are its name and family. Those in `metadata` are by what the camera said, in an answer of its own that can be wrong
or about another file; they help where these are missing.

"""


def _name(name: str, shown: Mapping[Layout, Mapping[str, object]]) -> tuple[str, ...]:
    other = OTHER_JSON.read().to_json()
    having = [
        f"`{layout.value}`"
        for layout, known in shown.items()
        if name in known or (layout is Layout.JSON and name in other)
    ]
    return f"`{name}`", *NAMES[name], "all" if len(having) == len(shown) else ", ".join(having)


def _layouts() -> str:
    return f"""## Which layout a body has

The first that fits counts:

{_table(("when", "layout"), CHOICE)}

Binary layouts are big-endian. A body can end early, DSM's and ADAS's from 14 bytes on, DualCam's anywhere (before
version 4 it has 32 bytes or fewer); a field that is not there whole is missing.

{"".join(_layout(layout) for layout in Layout if layout in PARTS)}### `json`

UTF-8, from protocol 6 on. `version`, `driver_name`, and in objects: `file` with `file_type`, `file_timestamp`,
`duration` (`duration_s`) and `framerate` (`frame_rate`); `location` with `latitude` and `longitude`; `fm_trigger`
(`trigger`) and `cam_trigger`, each with `type`. A `file_timestamp` below 100000000000 is in seconds, from there on in
milliseconds. Where a key comes twice, the last one counts. So that the sidecar is JSON for everybody, `document` has
null for numbers that are not finite and for what is nested more than 12 deep, text for integers of more than 20
characters, and U+FFFD for bytes that are no UTF-8.

"""


def _layout(layout: Layout) -> str:
    rows, offset = [], 0
    for part in PARTS[layout]:
        rows.append((str(offset), str(part.size_bytes), _TYPES[part.form], f"`{part.name}`", part.says))
        offset += part.size_bytes
    return f"""### `{layout.value}`, {offset} bytes

{_table(("at", "bytes", "type", "field", "says"), rows)}

"""


#: How the format characters of `struct` are called.
_TYPES = {"B": "u8", "H": "u16", "h": "i16", "I": "u32", "i": "i32", "Q": "u64", "d": "f64", "10s": "ASCII"}


def _named(types: Mapping[int, FileType]) -> dict[int, str]:
    return {number: known.name for number, known in types.items()}


def _numbers(tables: Mapping[str, Mapping[int, str]]) -> str:
    numbers = sorted({number for table in tables.values() for number in table})
    rows = [
        (str(number), *(f"`{table[number]}`" if number in table else "" for table in tables.values()))
        for number in numbers
    ]
    return _table(("number", *tables), rows)


def _example(layout: Layout, known: Mapping[str, object]) -> str:
    example = EXAMPLES[layout]
    return f"""### `{layout.value}`

`{example.device_path.decode()}`, protocol {example.protocol_id}:

```json
{json.dumps(known, indent=2)}
```

"""


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
