"""Numbers on the command lines of data preparation: what is out of range ends with 2 and one line, before any work."""

import pytest

FOLDER = "scripts/data_preparation"
SCENES, SIMULATE, RECORDING = (
    (f"{FOLDER}/make_scene_dataset.py", ["--photos", "p", "--out", "o"]),
    (f"{FOLDER}/simulate_spike_dataset.py", ["--frames", "f", "--out", "o"]),
    (f"{FOLDER}/prepare_recording.py", ["--spikes", "s.dat", "--frames", "f", "--out", "o"]),
)
COUNTS, REALS = ("-1", "1.5", "nan", "inf"), ("-1", "nan", "inf")
FLAGS = [
    *((SCENES, flag, ("0", *COUNTS)) for flag in ("--clips", "--test-clips", "--frames", "--spike-scale")),
    *((SCENES, flag, COUNTS) for flag in ("--instants", "--seed")),
    *((SCENES, flag, ("1.1", *REALS)) for flag in ("--holdout", "--video-share", "--still-share")),
    (SCENES, "--theta", ("0", "1e9", *REALS)),
    *((SIMULATE, flag, ("0", *COUNTS)) for flag in ("--blur-frames", "--steps-per-frame", "--spike-scale")),
    *((SIMULATE, flag, COUNTS) for flag in ("--instants", "--seed")),
    (SIMULATE, "--theta", ("0", "1e9", *REALS)),
    (SIMULATE, "--fps", ("0", *REALS)),
    *((RECORDING, flag, ("0", *REALS)) for flag in ("--exposure", "--fps", "--clock-hz")),
    *((RECORDING, flag, ("nan", "inf")) for flag in ("--start", "--stream-start")),
    *((RECORDING, flag, ("0", *COUNTS)) for flag in ("--spike_h", "--spike_w", "--resize")),
    (RECORDING, "--margin", COUNTS),
    (RECORDING, "--sharp-at", ("1.1", *REALS)),
    (RECORDING, "--rate-at-white", ("0", "1.1", *REALS)),
    ((f"{FOLDER}/make_demo_dataset.py", ["--out", "o"]), "--seed", COUNTS),
    ((f"{FOLDER}/make_demo_recording.py", ["--out", "o"]), "--seed", COUNTS),
    ((f"{FOLDER}/make_demo_recording.py", ["--out", "o"]), "--frames", ("0", *COUNTS)),
    ((f"{FOLDER}/prepare_gopro_spike_dataset.py", []), "--workers", ("0", *COUNTS)),
    ((f"{FOLDER}/create_lmdb.py", ["--dataset-root", "o"]), "--workers", ("0", *COUNTS)),
]


@pytest.mark.parametrize(("program", "flag", "values"), FLAGS, ids=[f"{one[0][0][25:]} {one[1]}" for one in FLAGS])
def test_a_number_out_of_range_is_told_in_one_line(run_program, place, program, flag, values):
    for value in values:
        code, _, error = run_program(program[0], *program[1], flag, value)
        assert (code, error.count("\n")) == (2, 1), error
        assert flag in error
        assert value in error or str(float(value)) in error
    assert not list(place.iterdir())
