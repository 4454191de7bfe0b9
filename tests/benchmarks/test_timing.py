import functools
import sys

import pytest
import torch
from multiresnet_bench import timing
from torch import nn

from multiresnet.budget import count_saved_bytes


class Clock:
    """Seconds that pass only when a task says so."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def task(self, name, durations):
        remaining = iter(durations)

        def run():
            self.calls.append(name)
            self.now += next(remaining)

        return run


def test_turns_medians_and_ratios_on_a_clock_of_our_own():
    clock = Clock()
    # the first turn is warm-up; the third turn that counts falls into a slow spell of the machine
    tasks = {"a": clock.task("a", [9, 1, 2, 100, 3]), "b": clock.task("b", [9, 2, 4, 200, 9])}
    samples = timing.interleave(tasks, timer=timing.by_clock(clock), repetitions=4, warmup=1)
    assert clock.calls == ["a", "b"] * 5
    assert samples == {"a": [1, 2, 100, 3], "b": [2, 4, 200, 9]}
    assert timing.median_and_range(samples["a"]) == (2.5, 1, 100)
    assert timing.ratio(samples, "b", "a") == 2.0  # of 2, 2, 2, 3; the medians' ratio would be 2.6
    assert timing.ratio(samples, "a", "a") == 1.0


def test_one_thread_is_timed_by_its_own_processor_time():
    assert torch.get_num_threads() == 1
    assert timing.timer_for("cpu")[1] == "process CPU time"
    torch.set_num_threads(2)
    try:
        assert timing.timer_for("cpu")[1] == "wall clock"
    finally:
        torch.set_num_threads(1)


def test_saved_bytes_are_counted_once_and_without_parameters():
    shared = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8))
    # x (2 x 4), and the tanh's output (2 x 8), which the tanh and the second map both keep
    assert count_saved_bytes(shared, torch.zeros(2, 4)) == 4 * (2 * 4 + 2 * 8)


def allocate(megabytes):
    timing.peak_bytes(lambda: None, "cpu")
    return timing.peak_bytes(lambda: (torch.ones(megabytes * 250_000), torch.ones(250_000)) and None, "cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_what_was_allocated():
    small, large = (timing.in_fresh_process(allocate, megabytes) for megabytes in (10, 60))
    assert small >= 11e6  # and whatever code is loaded for the first time, which the difference leaves out
    assert large - small == pytest.approx(50e6, rel=0.2)


def test_errors_of_the_other_process_arrive():
    with pytest.raises(TypeError, match="int"):
        timing.in_fresh_process(functools.partial(int, []))


def test_only_devices_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    timing.check_device("cpu")
    with pytest.raises(ValueError, match="torch sees no GPU here.*use --device cpu"):
        timing.check_device("cuda")
    with pytest.raises(
        ValueError, match="must be cpu or cuda, got 'cuda:1'; choose among GPUs with CUDA_VISIBLE_DEVICES"
    ):
        timing.check_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    timing.check_device("cuda")
