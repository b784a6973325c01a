"""Times of a recording's frames, as people and their programs write them: what is read, and what is refused."""

import json

import numpy as np
import pytest

from data.prepare import pairing
from data.prepare.exposures import Clock, Exposure, check_overlap, from_file
from data.spike.doctor.declared import Given
from utils.spike_loader import write_spikes
from utils.utils_error import UserError

FRAMES = ["a 1", "a 2", "a 3"]
WANTED = [(30, 90), (120, 180), (210, 270)]


def read(folder, text, *, unit="steps", name="times.csv", frames=FRAMES, **given):
    file = folder / name
    file.write_text(text)
    return from_file(file, frames, Clock(20000, unit, given.pop("zero", 0.0)), **given)


READABLE = {
    "quoted by pandas": '"frame","start","end"\n"a 1.png","30","90"\n"a 2.png","120","180"\n"a 3.png","210","270"\n',
    "with R's row names": '"","frame","start","end"\n"1","a 1",30,90\n"2","a 2",120,180\n"3","a 3",210,270\n',
    "blanks in names": "a 1, 30, 90\na 2, 120, 180\na 3, 210, 270\n",
    "quotes between blanks": '"a 1"  30 90\n"a 2" 120 180\n"a 3" 210  270\n',
    "units in brackets": "frame,start (ms),end [µs]\na 1,1.5,4500\na 2,6,9000\na 3,10.5,13500\n",
    "each column its unit": "timestamp_ns, exposure_us\n1500000, 3000\n6000000, 3000\n10500000, 3000\n",
    "one unit, not that of other times": "start_ms;end_ms\n1.5;4.5\n6;9\n10.5;13.5\n",
    "a mark and semicolons": "\ufeffframe;start;end\na 1;30;90\na 2;120;180\na 3;210;270\n",
    "unsorted, and an exposure that agrees": (
        "frame,start,end,exposure_time\na 3,210,270,60\na 1,30,90,60.4\na 2,120,180,60\n"
    ),
    "another clip's frames": "frame,start,end\nb 1,1,2\na 1,30,90\na 2,120,180\na 3,210,270\n",
}


@pytest.mark.parametrize("case", READABLE)
def test_times_are_read_as_programs_write_them(tmp_path, case):
    assert np.allclose(read(tmp_path, READABLE[case]), WANTED)


def test_a_column_of_another_unit_counts_from_the_same_zero(tmp_path):
    found = read(tmp_path, "start_ns,exposure_us\n1000001500000,3000\n", unit="s", zero=1000, frames=["1"])
    assert np.allclose(found, [(30, 90)])


REFUSED = {
    "two starts": ("frame,start,time,end\na 1,1,2,3\n", "two columns with the start, start and time"),
    "two names": ("frame,file,start\n1,a 1,2\n", "two columns with the frame, frame and file"),
    "an exposure that contradicts": (
        "frame,start,end,exposure\na 1,30,90,60\na 2,120,180,90\na 3,210,270,60\n",
        "frame a 2 has the exposure 120 to 180, but 90 in the column exposure",
    ),
    "an unknown unit": ("frame,start,end (h)\na 1,30,90\n", r"column end \(h\) has the unit h, expected s, ms, us, ns"),
    "clips whose frames are named alike": (
        "frame,start,end\nA/a 1,30,90\nA/a 2,120,180\nA/a 3,210,270\nB/a 1,31,91\n",
        "has two rows for frame a 1: A/a 1 and B/a 1",
    ),
    "an open quote": ('frame,start,end\n"a 1,30,90\n', "the row '\"a 1,30,90' cannot be read"),
    "a comma in numbers": ("frame;start;end\na 1;0,5;90\na 2;1;2\na 3;1;2\n", "time '0,5', expected a number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_times_in_doubt_are_refused_in_one_line(tmp_path, case):
    text, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"frame": "a 1", "start": 30, "end": 90}, {"start": 120, "end": 180}], "row 2 names no frame, row 1 does"),
        ([["a 1", 30, 90], [120, 180]], "row 2 names no frame, row 1 does"),
        ([[30, 90], ["a 1", 120, 180]], "row 1 names no frame, row 2 does"),
        ([{"when": 30}], "has the columns when, expected frame, start, end"),
    ],
)
def test_json_rows_that_differ_are_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, json.dumps(rows), name="times.json")


@pytest.mark.parametrize("text", ["30 90\n120 180\n210 270\n", "start,exposure\n30,60\n120,60\n210,60\n"])
def test_a_moment_that_the_times_contradict_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="--timestamp middle: .* start"):
        read(tmp_path, text, moment="middle")


def test_exposures_longer_than_the_frame_interval_are_said_or_refused(caplog):
    def check(length):
        check_overlap(FRAMES, [Exposure(first, first + length) for first in (0, 60, 119)])

    check(60)
    assert not caplog.text
    check(90)
    assert len(caplog.records) == 1
    assert "frame a 2: its exposure has 90 steps, but that of frame a 3 starts after 59" in caplog.text
    with pytest.raises(UserError, match=r"exposures of 300 steps start every 59.5 steps"):
        check(300)


# ---- spike files


def streams(folder, frames, **given):
    return pairing.open_streams(folder, frames, Given((32, 40), "little"), **{"format": None} | given)[0]


@pytest.fixture
def spike(tmp_path, spike_array):
    for name in ("shot_1", "shot_2", "shot_3"):
        write_spikes(tmp_path / f"{name}.dat", spike_array)
    return tmp_path


@pytest.fixture(scope="module")
def spike_array():
    from spike_scenes import fire, textured

    return fire(textured(32, 40), 60, np.random.default_rng(0))


def test_two_files_for_a_frame_are_refused(spike, spike_array):
    np.save(spike / "shot_3.npy", spike_array)
    with pytest.raises(UserError, match=r"shot_3.dat and shot_3.npy would both be the spikes of frame shot_3"):
        streams(spike, ["shot_1", "shot_2", "shot_3"])


def test_files_of_two_formats_are_refused(spike, spike_array):
    (spike / "shot_3.dat").unlink()
    np.save(spike / "shot_3.npy", spike_array)
    with pytest.raises(UserError, match=r"shot_3.npy: is npy, expected dat as shot_2.dat"):
        streams(spike, ["shot_1", "shot_2", "shot_3"])


def test_a_folder_with_one_file_is_one_stream_unless_the_file_is_a_frames(spike):
    (spike / "._shot_1.dat").write_bytes(b"mark of a file system")
    (spike / "shot_2.dat").unlink()
    (spike / "shot_3.dat").unlink()
    assert streams(spike, ["1", "2", "3"]).is_one
    assert not streams(spike, ["shot_1"]).is_one
    with pytest.raises(UserError, match="no spike file for frame shot_2"):
        streams(spike, ["shot_1", "shot_2"])


def test_a_frame_twice_in_a_json_object_is_refused(tmp_path):
    with pytest.raises(UserError, match="the key a 1 occurs twice"):
        read(tmp_path, '{"a 1": [30, 90], "a 2": [120, 180], "a 3": [210, 270], "a 1": [31, 91]}', name="times.json")
