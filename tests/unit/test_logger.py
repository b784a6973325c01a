"""Records of a run: what they hold, what a failing disk does to them, and that they keep secrets."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from shlex import quote
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.profiler import record_function

from options.schema import LoggingOpt, Opt
from utils import utils_cli, utils_logger
from utils.records import boards, profiling
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_logger import LineFile, Run, Stopwatch, drop_after, train_line

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
NEEDS_FULL = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
SPACE = "No space left on device; this run continues without it"
PLAIN = {"use_tensorboard": False, "use_wandb": False}
KEY = "s3cr3t" * 7


@pytest.fixture
def said(monkeypatch):
    """What the program's logger says."""
    logger = logging.getLogger("spikevrt")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()
    lines = []

    class Listener(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger.addHandler(Listener())
    yield lines
    logger.manager._clear_cache()


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """What a run changes in its process comes back."""
    for name in ("WANDB_API_KEY", "WANDB_ERROR_REPORTING", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["main_train_vrt.py", "--opt", "x.json"])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


def start(folder, step=0, config=None, **changes):
    run = Run(folder, LoggingOpt(**PLAIN | changes), Dist(), config or {})
    run.begin(step)
    return run


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# Lines


def test_lines_are_objects_without_nan(tmp_path, said):
    run = start(tmp_path)
    run.log(1, "train", {"G_loss": float("nan"), "grad_norm": float("inf"), "lr": 1e-3})
    run.log(1, "test", {"psnr": 30.5})
    assert metrics(tmp_path) == [
        {"step": 1, "split": "train", "G_loss": None, "grad_norm": None, "lr": 1e-3},
        {"step": 1, "split": "test", "psnr": 30.5},
    ]


def test_only_rank_0_writes(tmp_path, said):
    run = Run(tmp_path / "run", LoggingOpt(use_tensorboard=True), Dist(1, 2), {})
    run.begin(0)
    run.log(1, "train", {"lr": 1.0})
    run.log_test(1, {"mean": {"psnr": 1.0}, "clips": {"a": {"psnr": 1.0}}})
    run.image(1, "a", np.zeros((4, 4, 3), np.uint8))
    run.close()
    assert not (tmp_path / "run").exists()


def test_a_run_belongs_to_one_training(tmp_path, said):
    opt = Opt.model_validate({"task": "x", "logging": PLAIN})

    def start_run():
        return utils_logger.start_run(tmp_path, opt.logging, Dist(), opt)

    with start_run() as run:
        run.begin(0)
        with pytest.raises(UserError, match=rf"this run is in use by process {os.getpid()} on .* --set task=NAME"):
            start_run()
        run.log(1, "train", {"lr": 1.0})
    with pytest.raises(KeyError), start_run():
        raise KeyError
    start_run().close()
    assert [line["step"] for line in metrics(tmp_path)] == [1]


def test_a_step_that_was_lost_appears_once(tmp_path, said):
    run = start(tmp_path)
    for step in range(1, 8):
        run.log(step, "train", {"G_loss": float(step)})
    run.log(5, "test", {"psnr": 1.0})
    run.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "spl')  # the crash

    again = start(tmp_path, step=5)
    for step in range(6, 8):
        again.log(step, "train", {"G_loss": -float(step)})

    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in lines if line["split"] == "test"] == [5]
    assert [line["G_loss"] for line in lines[-2:]] == [-6.0, -7.0]


def test_nothing_lost_nothing_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "split": "train"}\n')
    before = path.stat()
    assert drop_after(path, 3) == 3
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.write_text('{"step": 3, "split": "train"}')  # the line break was lost
    drop_after(path, 3)
    assert path.read_text() == '{"step": 3, "split": "train"}\n'
    assert drop_after(tmp_path / "none", 3) == -1


def test_lost_steps_stay_where_the_disk_takes_no_new_file(tmp_path, said, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "split": "train"}\n')

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(utils_logger, "write_text", full)
    drop_after(path, 1)
    assert path.read_text() == '{"step": 3, "split": "train"}\n'
    assert said == ["metrics.jsonl: No space left on device; lines of steps after 1 stay in it"]


# A disk that fails


@NEEDS_FULL
def test_a_full_disk_costs_lines_and_is_said_once(tmp_path, said, capfd):
    run = start(tmp_path)
    for name in ("train.log", "metrics.jsonl"):
        (tmp_path / name).symlink_to(FULL)
    for step in range(1, 4):
        logging.getLogger("spikevrt").info("step %d", step)
        run.log(step, "train", {"G_loss": 1.0})
    run.close()
    assert said == ["step 1", f"train.log: {SPACE}", f"metrics.jsonl: {SPACE}", "step 2", "step 3"]
    assert capfd.readouterr() == ("", "")


@NEEDS_FULL
def test_when_space_returns_the_lines_go_on(tmp_path, said):
    run = start(tmp_path)
    for name in ("train.log", "metrics.jsonl"):
        (tmp_path / name).symlink_to(FULL)
    run.log(1, "train", {"G_loss": 1.0})
    run.log(2, "train", {"G_loss": 1.0})
    for name in ("train.log", "metrics.jsonl"):
        (tmp_path / name).unlink()
    run.log(3, "train", {"G_loss": 1.0})
    run.log(4, "train", {"G_loss": 1.0})
    run.close()
    assert [line["step"] for line in metrics(tmp_path)] == [3, 4]
    assert said[-2:] == ["metrics.jsonl: writing works again; lost: 2 lines", said[-1]]
    log = (tmp_path / "train.log").read_text()
    assert "metrics.jsonl: writing works again" in log
    assert "train.log: writing works again; " in log


def test_a_line_that_fits_in_half_is_not_written(tmp_path, said, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    file = LineFile(path)
    file.write("first\n")
    opened = Path.open

    def nearly_full(self, mode, buffering):
        raw = opened(self, mode, buffering=buffering)
        write = raw.write

        class Short:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                raw.close()

            def seek(self, *to):
                return raw.seek(*to)

            def write(self, data):
                return write(data[:3])

        return Short()

    monkeypatch.setattr(Path, "open", nearly_full)
    file.write("second\n")
    monkeypatch.undo()
    assert path.read_text() == "first\n"
    file.write("third\n")
    assert path.read_text() == "first\nthird\n"


def test_a_file_that_cannot_be_opened_is_said_once(tmp_path, said):
    (tmp_path / "train.log").mkdir()
    run = start(tmp_path)
    for _ in range(3):
        logging.getLogger("spikevrt").info("hello")
    run.close()
    assert said == ["hello", "train.log: Is a directory; this run continues without it", "hello", "hello"]


def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path, said):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: Not a directory; the run must write there"):
        start(tmp_path / "file" / "run")
    run = start(tmp_path)
    (tmp_path / "options.json").mkdir()
    with pytest.raises(UserError, match=r"options.json: Is a directory; "):
        run.write_options(Opt.model_validate({"task": "x"}))


def test_a_reader_that_is_gone_costs_lines_only(monkeypatch, said, capfd):
    """As in `main_train_vrt.py | head -1`."""
    reading, writing = os.pipe()
    stdout = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", stdout)
    os.close(reading)
    with utils_cli.program():
        for _ in range(3):
            logging.getLogger("spikevrt").info("hello")
        stdout.write("not flushed")
    stdout.close()
    assert said == ["hello"] * 3
    assert capfd.readouterr().err == ""


# TensorBoard


def board(folder):
    events = EventAccumulator(str(folder / "tb_logger"), {"scalars": 0, "images": 0})
    events.Reload()
    return events


def test_tensorboard_has_curves_by_clip_and_hides_lost_steps(tmp_path, said):
    values = {"G_loss": 0.5, "lr": 1e-3, "samples_per_s": 4.0, "memory_gib": 1.0, "skipped": 2}
    for begin, last in ((0, 6), (3, 5)):
        run = start(tmp_path, begin, use_tensorboard=True)
        for step in range(begin + 1, last + 1):
            run.log(step, "train", {**values, "start": begin})
        run.log_test(
            last, {"mean": {"psnr": 30.0}, "clips": {"a": {"psnr": 29.0, "lq_psnr": 9.0}, "b": {"psnr": 31.0}}}
        )
        run.image(last, "a", np.zeros((8, 8, 3), np.uint8))
        run.close()
    shown = board(tmp_path)
    train = {f"train/{key}" for key in (*values, "start")}
    assert set(shown.Tags()["scalars"]) == train | {"test/psnr", "test_psnr_by_clip/a", "test_psnr_by_clip/b"}
    starts = [(event.step, event.value) for event in shown.Scalars("train/start")]
    assert starts == [(1, 0), (2, 0), (3, 0), (4, 3), (5, 3)]
    assert [(event.step, event.value) for event in shown.Scalars("test_psnr_by_clip/b")] == [(5, 31.0)]
    assert [event.step for event in shown.Images("a")] == [5]


def test_a_board_that_fails_is_given_up(tmp_path, said, monkeypatch):
    from tensorboard.summary.writer import record_writer

    tracebacks = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    run = start(tmp_path, use_tensorboard=True)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    thread = run._boards._boards["TensorBoard"]._writer.file_writer.event_writer._async_writer._worker
    run.log(1, "train", {"G_loss": 1.0})
    thread.join(30)
    for step in (2, 3):
        run.log(step, "train", {"G_loss": 1.0})
    run.close()
    assert said == [f"TensorBoard: {SPACE}"]
    assert tracebacks == []
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3]


def test_a_board_that_cannot_start_is_said(tmp_path, said):
    (tmp_path / "tb_logger").write_text("")
    run = start(tmp_path, use_tensorboard=True)
    run.log(1, "train", {"G_loss": 1.0})
    run.close()
    assert len(said) == 1
    assert re.fullmatch("TensorBoard: .*; this run continues without it", said[0])


def test_errors_of_other_threads_are_shown(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: None)
    boards._hide_traceback(seen.append, SimpleNamespace(thread=threading.current_thread()))
    assert len(seen) == 1


# W&B


class FakeWandb:
    """Remembers what it is given; `at` is the step after the last one that the server has."""

    def __init__(self, at=0, broken=()):
        self.at, self.broken, self.inits, self.logs, self.environment = at, broken, [], [], {}
        self.argv = None
        self.Image = lambda array: ("image", array.shape)

    def init(self, **given):
        if "init" in self.broken:
            raise RuntimeError(f"no\nnetwork for {os.environ.get('WANDB_API_KEY')}")
        self.inits.append(given)
        self.argv, self.key = list(sys.argv), os.environ.get("WANDB_API_KEY")
        return SimpleNamespace(step=self.at, url="https://wandb/run", log=self.log, finish=lambda: None)

    def log(self, values, step):
        if "log" in self.broken:
            raise ConnectionResetError(104, "Connection reset by peer")
        self.logs.append((step, values))


@pytest.fixture
def wandb(monkeypatch):
    def put(**how):
        fake = FakeWandb(**how)
        monkeypatch.setitem(sys.modules, "wandb", fake)
        return fake

    return put


def test_a_resumed_run_is_the_same_one_and_no_step_comes_twice(tmp_path, said, wandb):
    first = wandb()
    run = start(tmp_path, use_wandb=True, wandb_mode="offline")
    for step in range(1, 8):
        run.log(step, "train", {"G_loss": 1.0})
    second = wandb()
    run = start(tmp_path, 5, use_wandb=True, wandb_mode="offline")
    run.log(6, "train", {"G_loss": 1.0})
    third = wandb()
    run = start(tmp_path, 5, use_wandb=True, wandb_mode="offline")
    for step in range(6, 10):
        run.log(step, "train", {"G_loss": 1.0})
    run.log(9, "test", {"psnr": 1.0})
    run.image(9, "a", np.zeros((2, 3, 3), np.uint8))
    run.log(8, "test", {"psnr": 1.0})

    ids = {fake.inits[0]["id"] for fake in (first, second, third)}
    assert len(ids) == 1
    assert {fake.inits[0]["resume"] for fake in (first, second, third)} == {"allow"}
    assert [step for step, _ in first.logs] == [1, 2, 3, 4, 5, 6, 7]
    assert second.logs == []
    assert [step for step, _ in third.logs] == [8, 9, 9, 9]
    assert third.logs[-1] == (9, {"a": ("image", (2, 3, 3))})
    assert run.summary(9, tmp_path)[-2].startswith("board   wandb sync --append ")


def test_steps_that_the_server_has_are_not_sent(tmp_path, said, wandb):
    fake = wandb(at=4)
    run = start(tmp_path, 2, use_wandb=True)
    for step in (3, 4, 5):
        run.log(step, "train", {"G_loss": 1.0})
    assert [step for step, _ in fake.logs] == [4, 5]
    assert said == ["W&B: https://wandb/run"]


@pytest.mark.parametrize("word", ["logging.wandb_api_key={}", "wandb_api_key = {}", 'logging={{"wandb_api_key":"{}"}}'])
def test_the_key_reaches_the_account_and_nothing_else(tmp_path, said, wandb, monkeypatch, word):
    fake = wandb()
    monkeypatch.setattr(sys, "argv", ["main", "--set", "train.total_iter=1", word.format(KEY)])
    opt = Opt.model_validate({"task": "x", "logging": {**PLAIN, "use_wandb": True, "wandb_api_key": f" {KEY}\n"}})
    run = utils_logger.start_run(tmp_path, opt.logging, Dist(), opt)
    run.begin(0)
    run.write_options(opt)
    run.log(1, "train", {"lr": 1.0})
    run.close()
    assert fake.key == KEY
    assert fake.argv[:3] == ["main", "--set", "train.total_iter=1"]
    given = repr((fake.argv, fake.inits, fake.logs, said))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in given
    assert KEY.encode() not in written
    assert "wandb_project" in given


def test_the_environments_key_goes_before_the_options(tmp_path, said, wandb, monkeypatch):
    fake = wandb()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    start(tmp_path, use_wandb=True, wandb_api_key="other")
    assert fake.key == KEY


def test_disabled_needs_no_wandb(tmp_path, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    start(tmp_path, use_wandb=True, wandb_mode="disabled").log(1, "train", {"lr": 1.0})
    assert said == []


@pytest.mark.parametrize(
    ("broken", "line"),
    [("init", "W&B: no network for (hidden)"), ("log", "W&B: Connection reset by peer")],
)
def test_errors_of_wandb_end_wandb_only(tmp_path, said, wandb, broken, line):
    wandb(broken=broken)
    run = start(tmp_path, use_wandb=True, wandb_api_key=KEY)
    for step in (1, 2):
        run.log(step, "train", {"lr": 1.0})
    run.close()
    assert said[-1] == f"{line}; this run continues without it"
    assert len(metrics(tmp_path)) == 2


OFFLINE = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from utils.records.boards import WandB
secret = SimpleNamespace(get_secret_value=lambda: "KEY")
opt = SimpleNamespace(wandb_project="p", wandb_entity=None, wandb_name=None, wandb_mode="offline", wandb_api_key=secret)
for reached in (-1, 1):
    board = WandB(Path(sys.argv[1]), opt, {"lr": 1.0}, reached)
    for step in (1, 2):
        board.scalars(step, {"train/G_loss": 1.0})
        board.image(step, "clip", np.zeros((4, 4, 3), np.uint8))
    board.close()
"""


@pytest.mark.slow
def test_real_wandb_offline_keeps_the_key_and_the_network_out(tmp_path):
    pytest.importorskip("wandb")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        proxies = {"HTTPS_PROXY": address, "HTTP_PROXY": address, "ALL_PROXY": address, "NO_PROXY": ""}
        done = subprocess.run(
            [sys.executable, "-c", OFFLINE.replace("KEY", KEY), tmp_path, f"wandb_api_key={KEY}"],
            cwd=ROOT,
            env=os.environ | proxies | {"WANDB_BASE_URL": address, "WANDB_ERROR_REPORTING": "true"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    runs = [path for path in files if path.suffix == ".wandb"]
    assert {path.name for path in runs} == {f"run-{json.loads((tmp_path / 'wandb_run.json').read_text())['id']}.wandb"}
    assert any(b"G_loss" in path.read_bytes() for path in runs)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


# Times and the end


def test_stopwatch_measures_throughput_data_and_memory(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(utils_logger.time, "perf_counter", lambda: now[0])
    watch = Stopwatch(total_steps=10, samples=8)
    for _ in range(2):
        asked_at = now[0]
        now[0] += 0.5
        watch.data_ready(asked_at)
        now[0] += 1.5
    values = watch.report(4)
    memory = values.pop("memory_gib")
    expected = {"time": 2.0, "data_time": 0.5, "data_share": 0.25, "samples_per_s": 4.0, "eta": 12.0}
    assert values == pytest.approx(expected)
    assert 0.01 < memory < 100


def test_line_of_a_step_is_kairs():
    values = {"G_loss": 0.031, "grad_norm": 1.5, "lr": 4e-4, "time": 1.25, "data_time": 0.1, "eta": 3700.0}
    more = {"data_share": 0.08, "samples_per_s": 6.4, "memory_gib": 2.0, "skipped": 0}
    start = "<epoch:  0, iter:     200, lr:4.000e-04> G_loss: 3.100e-02 grad_norm: 1.500e+00"
    end = " time: 1.250s data: 0.100s ETA: 1:01:40"
    assert train_line(0, 200, values | more) == start + end
    assert train_line(0, 200, values | more | {"skipped": 2}) == start + " skipped: 2" + end


def test_summary_says_where_everything_is(tmp_path, said):
    (tmp_path / "images").mkdir()
    run = start(tmp_path, use_tensorboard=True)
    run.log_test(1000, {"mean": {"psnr": 30.0, "ssim": 0.9, "lq_psnr": 20.0}, "clips": {}})
    weights = tmp_path / "models/best G.pth"
    lines = dict(line.split(maxsplit=1) for line in run.summary(2000, weights, {"step": 1000, "psnr": 30.0}, skipped=3))
    run.close()
    assert re.fullmatch(r"0:00:\d\d since this start", lines.pop("time"))
    assert lines == {
        "steps": "2,000, 3 skipped",
        "best": "psnr 30.0000 at step 1,000",
        "last": "psnr 30.0000, ssim 0.9000",
        "weights": str(weights),
        "log": f"{tmp_path}/train.log, {tmp_path}/metrics.jsonl",
        "board": f"tensorboard --logdir {quote(f'{tmp_path}/tb_logger')}",
        "images": f"{tmp_path}/images",
        "test": f"python main_test_vrt.py --opt {quote(f'{tmp_path}/options.json')} --set path.pretrained_netE=null "
        f"'path.pretrained_netG={weights}'",
    }


# Profile


def profiled(folder, first, done, end, dist=None):
    opt = LoggingOpt(profile_start=first, profile_steps=2)
    with profiling.ProfileWindow(folder, opt, dist or Dist(), done) as window:
        for step in range(done + 1, end + 1):
            with record_function(f"mark{step}."):
                pass
            window.step(step)
    return {
        path.stem: sorted(set(re.findall(r"mark\d+\.", path.read_text()))) for path in folder.rglob("profile/*.json")
    }


@pytest.mark.parametrize(
    ("first", "done", "end", "recorded"),
    [
        (3, 0, 6, {"steps_3-4": ["mark3.", "mark4."]}),
        (1, 0, 4, {"steps_1-2": ["mark1.", "mark2."]}),
        (3, 2, 6, {"steps_3-4": ["mark3.", "mark4."]}),
        (3, 0, 3, {"steps_3-3": ["mark3."]}),
        (3, 0, 2, {}),
        (3, 3, 6, {}),
        (None, 0, 6, {}),
    ],
)
def test_profile_has_the_steps_of_the_window(tmp_path, said, first, done, end, recorded):
    assert profiled(tmp_path, first, done, end) == recorded
    tables = list(tmp_path.rglob("profile/*.txt"))
    assert [path.stem for path in tables] == list(recorded)
    assert all("Self CPU" in path.read_text() for path in tables)
    assert len(said) == len(recorded)


def test_profile_is_rank_0s_and_never_ends_a_run(tmp_path, said):
    assert profiled(tmp_path, 1, 0, 3, Dist(1, 2)) == {}
    (tmp_path / "profile").write_text("in the way")
    profiled(tmp_path, 1, 0, 3)
    assert len(said) == 1
    assert said[0].endswith("this run continues without it")
