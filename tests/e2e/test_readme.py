"""README.md and README_zh-CN.md: every command runs as printed and in the order printed, and both say the same.

Commands run in a clone without data. Trainings take one step, and sets are small. A command fails whose program is not
in LESS, and which is not in NOT_RUN itself: say there how it is run, or why it is not.
"""

import ast
import os
import re
import shlex
import subprocess
from collections import Counter

import pytest
import warm_start
from test_launchers import Machine
from test_prepare_gopro import CLIPS, make_clip
from training_run import PATIENCE, ROOT

ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README_zh-CN.md")
)  # the same pages, in this order
MOST_WORDS = 1500

NOT_RUN = {
    "source .venv/bin/activate": "who has all packages has no .venv",
    "scripts/recipes/two_stages.sh gopro": "two networks for GPUs; tests/unit/test_recipes.py runs it with a stand-in",
    "python scripts/summary.py --opt options/vrt/gopro/stage2.json --fit 12GB":
        "minutes: it walks through the whole VRT for every crop; tests/unit/test_summary.py does so with a small one",
}  # fmt: skip
SIZES = [f"datasets.{kind}.spike_{side}=null" for kind in ("train", "test") for side in "hw"]  # the small set's differ
SHORT = ["train.total_iter=1", "train.checkpoint_test=1", "train.checkpoint_save=1", 'val.metrics=["psnr"]']
SMALL = ["datasets.train.gt_size=32", "datasets.train.dataloader_num_workers=0", "train.warmup_iter=0"]
LESS = {
    "main_train_vrt.py": ["--set", *SHORT, *SMALL, *SIZES],
    "main_test_vrt.py": ["--set", *SIZES[2:]],
    "scripts/check_data.py": ["--set", SMALL[0]],
    "scripts/compare.py": [],
    "scripts/data_preparation/make_demo_dataset.py": [],
    "scripts/data_preparation/make_demo_recording.py": [],
    "scripts/data_preparation/prepare_gopro_spike_dataset.py": [],
    "scripts/data_preparation/prepare_recording.py": [],
    "scripts/data_preparation/simulate_spike_dataset.py": [],
    "scripts/evaluate.py": [],
    "scripts/runtime_config.py": [],
    "scripts/spike.py": [],
}  # program -> what is added to its words
SHELL = ("./launch_train.sh", "./launch_test.sh", "./scripts/check.sh", "./scripts/setup_env.sh")
SMALLER = {
    "make_demo_dataset": """
@dataclasses.dataclass(frozen=True)
class Small(program.Recipe):
    height: int = 48
    width: int = 64
    frames: int = 6
    train_clips: int = 1
    test_clips: int = 2

program.Recipe = Small
""",
    "make_demo_recording": "program.RGB, program.SPIKES = (144, 256), (72, 128)",
}


def blocks(text, language):
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(text):
    """The words of every command."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def prose(text):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def spans(text):
    return Counter(re.findall(r"`([^`]+)`", text))


def numbers(text):
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


def targets(text):
    """What links and pictures lead to: those to the other page count as one, those to headings as another."""
    found = re.findall(r"\]\(([^)]+)\)", text)
    return Counter("heading" if to[0] == "#" else re.sub(r"^README.*", "other language", to) for to in found)


def rows(text):
    """The cells of all table rows."""
    lines = [line for line in prose(text).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def headings(text):
    return re.findall(r"^(#+) (.+)", prose(text), re.M)


# ---- what is printed


def test_each_names_the_other_in_its_first_line():
    assert "(README_zh-CN.md)" in ENGLISH.splitlines()[0]
    assert "(README.md)" in CHINESE.splitlines()[0]


def test_both_have_the_same_code():
    languages = [re.findall(r"^```(\w+)$", text, re.M) for text in (ENGLISH, CHINESE)]
    assert languages[0] == languages[1]
    assert set(languages[0]) == {"bash", "python"}  # what the tests below run
    assert commands(ENGLISH) == commands(CHINESE)
    assert [ast.dump(ast.parse(block)) for block in blocks(ENGLISH, "python")] == [
        ast.dump(ast.parse(block)) for block in blocks(CHINESE, "python")
    ]


def test_both_have_the_same_tables():
    ours, theirs = rows(ENGLISH), rows(CHINESE)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert [(spans(cell), numbers(cell)) for cell in mine] == [(spans(cell), numbers(cell)) for cell in other]


def test_both_have_the_same_links_pictures_headings_names_and_numbers():
    assert targets(ENGLISH) == targets(CHINESE)
    assert re.findall(r"!\[[^]]+\]\((.+)\)", ENGLISH) == re.findall(r"!\[[^]]+\]\((.+)\)", CHINESE)
    assert [level for level, _ in headings(ENGLISH)] == [level for level, _ in headings(CHINESE)]
    assert spans(prose(ENGLISH)) == spans(prose(CHINESE))
    assert numbers(ENGLISH) == numbers(CHINESE)


def test_the_page_stays_short():
    assert len(ENGLISH.split()) <= MOST_WORDS


def test_what_is_not_run_is_still_printed():
    assert NOT_RUN.keys() <= {shlex.join(words) for words in commands(ENGLISH)}


# ---- what runs


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone without data, the downloads of GoPro + Spike, and a machine that records what launchers start."""
    place = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name[0] != "." and path.name not in ("datasets", "experiments", "results"):
            (place / path.name).symlink_to(path)
    for split, clips in CLIPS.items():
        for clip, first in clips.items():
            make_clip(place / "datasets", split, clip, first)
    for name, change in SMALLER.items():
        lines = ["import dataclasses", f"from scripts.data_preparation import {name} as program", change, ""]
        (place / f"{name}.py").write_text("\n".join([*lines, "program.main()\n"]))
    return place, Machine(tmp_path_factory.mktemp("machine"))


def start(words, place):
    """Run a Python program of the clone to its end, with less to do."""
    program, *given = words
    if program not in LESS:
        pytest.fail(f"README starts {program}, which this test does not know: add it to LESS or NOT_RUN")
    small = place / f"{program.rpartition('/')[2]}"
    path = small if small.stem in SMALLER else program
    finish([path, *given, *LESS[program]], place)


def finish(command, place):
    process = warm_start.start(command, cwd=place, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, f"{command}: {out[-2000:]}\n{err[-2000:]}"


def calls_of(machine, words):
    """The Python programs that a shell script starts."""
    machine.calls_file.unlink(missing_ok=True)
    done = subprocess.run(words, cwd=ROOT, env=machine.env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return machine.calls


@pytest.mark.slow
def test_every_command_runs_in_the_order_printed(clone):
    place, machine = clone
    for words in commands(ENGLISH):
        if shlex.join(words) in NOT_RUN:
            continue
        if words[0] in SHELL:
            calls = calls_of(machine, words)
        else:
            assert words[0] == "python", words
            calls = [words[1:]]
        for call in calls:
            if call[0] != "-m":  # the tools of check.sh, which run these tests
                start(call, place)
    for name in ("spike_guide/walk.mp4", "demo/comparison.png", "guide/report.html", "shipped/compare.html"):
        assert (place / "results" / name).is_file(), name
    for block in blocks(ENGLISH, "python"):
        (place / "block.py").write_text(block)
        finish(["block.py"], place)
    assert (place / "restored.png").is_file()
