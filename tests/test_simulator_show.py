"""What a run looks like."""

import io

from rich.console import Console

from dsmgateway.simulator.device import Tally
from dsmgateway.simulator.report import CameraRow, FileRow, FleetResult
from dsmgateway.simulator.show import Screen, reasons_in_words, summary


def result(*cameras: CameraRow, **tally: int) -> FleetResult:
    return FleetResult(2.0, Tally(**tally), cameras, ())


def shown(*printed: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    for one in printed:
        console.print(one)
    return console.file.getvalue()


def test_without_a_terminal_a_line_comes_now_and_then():
    """A log gets a plain line every few seconds, not bars."""
    console = Console(file=io.StringIO(), width=40)
    tally = Tally(offered=10, acknowledged=3, bytes_sent=5000, connections_now=2)
    tally.faults["cut"] = 4
    with Screen(console, 5) as screen:
        for second in range(1, 12):
            screen.update(tally, second)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert "5 s: 3 of 10 files acknowledged, 5.0 kB sent" in lines[0]
    assert lines[0].endswith("2 connections, faults: 4 cut")


def test_terminal_gets_bars():
    """A terminal shows files, bytes, connections and faults as they are now."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    tally = Tally(offered=10, acknowledged=3, bytes_offered=90_000, bytes_sent=50_000, bytes_sent_again=2000)
    with Screen(console, 5) as screen:
        screen.update(tally, 0.2)
    text = console.file.getvalue()
    for words in ("3 of 10 files", "48.0 kB of 90.0 kB, 2.0 kB again", "0 now, 0 in all", "faults none"):
        assert words in text


def test_summary_tells_files_bytes_and_time():
    """The table at the end has every figure of the run."""
    good = result(offered=4, acknowledged=4, bytes_sent=4000, connections=3)
    table = shown(summary(good))
    for words in ("4 of 4", "4.0 kB", "3 (0 reconnects)", "2.0 s", "2.0 kB/s"):
        assert words in table
    assert good.is_good


def of_family(family: str, acknowledged: bool = True) -> FileRow:
    return FileRow("1", family, 5, "path", 1, "", "", acknowledged, None, None, None, 1, 1, 0, 0)


def test_summary_tells_families_where_there_are_several():
    """Files are counted by family, unless all are of one."""
    files = (of_family("dsm"), of_family("dualcam"), of_family("dsm", False))
    mixed = shown(summary(FleetResult(2.0, Tally(), (), files)))
    assert "  dsm " in mixed and "1 of 2" in mixed
    assert "  dualcam " in mixed and "1 of 1" in mixed
    assert "dsm" not in shown(summary(FleetResult(2.0, Tally(), (), (files[0], files[2]))))


def test_reasons_are_told_once_each_and_not_without_end():
    """Why cameras failed comes in one line, the commonest reason first."""
    cameras = [CameraRow(str(number), 1, 0, 1, "refused", (f"reason {number % 7}",)) for number in range(14)]
    words = reasons_in_words(result(*cameras, offered=14, violations=14))
    assert words == "refused; reason 0; reason 1; reason 2; reason 3; and 3 more reasons"


def test_early_acknowledgement_makes_a_run_bad():
    """Files that were all acknowledged are not enough when the gateway did something wrong."""
    assert not result(offered=1, acknowledged=1, violations=1).is_good
    assert not result(offered=2, acknowledged=1).is_good
