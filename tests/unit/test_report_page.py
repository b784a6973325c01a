import sys

from test_eval import FakeClip, Val, restore

from utils import utils_dist, utils_eval
from utils.report import test_page

FACTS = {"title": "run", "options": {}, "environment": {}}


def test_keys_given_on_the_command_line_are_not_on_the_page(monkeypatch):
    words = ["main.py", "--set", "wandb_api_key=abc123", 'logging={"wandb_api_key": "abc123"}', "val.metrics=[]"]
    monkeypatch.setattr(sys, "argv", words)
    command = test_page.environment()["command"]
    assert "abc123" not in command
    assert "wandb_api_key=HIDDEN" in command
    assert "val.metrics=[]" in command


def test_results_of_older_runs_make_a_page():
    rows = [{"clip": clip, "frame": "000001", "psnr": 30.0, "lq_psnr": 25.0} for clip in "ab"]
    result = utils_eval.summarize(rows)
    older = {key: result[key] for key in ("protocol", "mean", "clips", "frames")}
    page = test_page.report_page(older, {}, FACTS)
    assert "mean of clips" in page
    assert "the mean over frames would be" not in page


def test_clips_without_sharp_frames_show_their_first_middle_and_last():
    watcher = test_page.ReportImages(2)
    clips = [FakeClip(name, 7, has_gt=False) for name in "dcba"]
    utils_eval.evaluate(restore, clips, Val(), watchers=[watcher])
    shown = watcher.gathered(utils_dist.Dist())["Restored frames"]
    places = [(picture.clip, picture.index) for picture in shown]
    assert places == [("a", 0), ("a", 3), ("a", 6), ("b", 0), ("b", 3), ("b", 6)]
