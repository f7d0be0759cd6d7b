from __future__ import annotations

import itertools

from training.phases import divide


def test_trimap_training_grows_its_pictures() -> None:
    phases = divide("trimap", steps=100, size=320, batch=4)
    assert [phase.size for phase in phases] == [128, 192, 320]


def test_phases_follow_one_another_without_using_a_sample_twice() -> None:
    phases = divide("trimap", steps=101, size=320, batch=4)
    assert (phases[0].first_step, phases[-1].end_step) == (0, 101)
    for before, after in itertools.pairwise(phases):
        assert before.end_step == after.first_step
        assert after.first_sample == before.first_sample + (before.end_step - before.first_step) * before.batch


def test_matting_training_keeps_one_size() -> None:
    assert [phase.size for phase in divide("matting", steps=10, size=160, batch=8)] == [160]
