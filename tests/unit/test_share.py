from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.work_split import Share, Work, split_work


@st.composite
def works(draw):
    made = []
    for _ in range(draw(st.integers(1, 6))):
        steps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
        cuts = [draw(st.integers(0, 3))]
        for step in steps:
            cuts.append(cuts[-1] + step)
        made.append(Work(cuts, draw(st.floats(0.1, 10)), draw(st.integers(0, 1))))
    return made


@settings(deadline=None)
@given(works(), st.integers(1, 9))
def test_every_wanted_frame_is_in_one_share(made, processes):
    shares = split_work(made, processes)
    assert len(shares) == processes
    frames = [(part.clip, frame) for share in shares for part in share for frame in range(part.first, part.stop)]
    wanted = [(clip, frame) for clip, work in enumerate(made) for frame in range(work.cuts[0], work.cuts[-1])]
    assert frames == wanted, "in order, so that neighbours are together"
    assert all(part.first in made[part.clip].cuts for share in shares for part in share)


@settings(deadline=None)
@given(works(), st.integers(2, 9))
def test_no_process_has_much_more_than_the_others(made, processes):
    line = sum((len(work.cuts) - 1) * work.cost for work in made)
    largest = max(work.cost for work in made)
    for share in split_work(made, processes):
        own = sum(
            sum(part.first <= cut < part.stop for cut in made[part.clip].cuts) * made[part.clip].cost for part in share
        )
        assert own <= line / processes + 4 * largest


def test_clips_of_one_piece_are_not_cut():
    shares = split_work([Work([0, 7], 1.0, 0)] * 4, 3)
    assert sorted(part.clip for share in shares for part in share) == [0, 1, 2, 3]
    assert max(map(len, shares)) == 2


def test_a_cut_that_costs_more_than_it_evens_out_is_not_made():
    two = [Work([0, 4, 8, 12], 1.0, 1)] * 2
    assert split_work(two, 2) == [[Share(0, 0, 12)], [Share(1, 0, 12)]]
    uneven = [Work([0, 4, 8], 1.0, 1), Work([0, 4, 8, 12, 16, 20, 24, 28, 32], 1.0, 1)]
    assert split_work(uneven, 2) == [[Share(0, 0, 8), Share(1, 0, 12)], [Share(1, 12, 32)]]
