"""The policies that settings describe, one by one."""

import pytest

from cluster.supervisor.failure_policy import BudgetedFailures
from cluster.supervisor.generation_progress import GenerationProgress, StepIntervals
from cluster.supervisor.hang_policy import MedianHangs
from cluster.supervisor.host_policy import HostsSetAside
from cluster.supervisor.policies import Policies
from cluster.supervisor.scaling_policy import MinMaxScaling
from cluster.supervisor.settings import BackOff, Budgets, HangLimits, HostLimits, Settings, Sizes
from cluster.supervisor.supervisor import Supervisor
from tests.cluster.supervisor.stage import user_error


def test_each_kind_of_trouble_has_its_own_budget() -> None:
    failures = BudgetedFailures(Budgets(failures=1, preemptions=2, resizes=1), BackOff())
    assert failures.fail(0.0, 10).goes_on and not failures.fail(0.0, 20).goes_on
    assert failures.preempt(0.0).goes_on and failures.preempt(0.0).goes_on and not failures.preempt(0.0).goes_on
    assert failures.may_resize()
    failures.resize(0.0)
    assert not failures.may_resize()


def test_budgets_without_limit_are_never_used_up() -> None:
    failures = BudgetedFailures(Budgets(failures=None, preemptions=None, resizes=None), BackOff())
    assert all(failures.fail(0.0, 0).goes_on and failures.preempt(0.0).goes_on for _ in range(1000))
    assert failures.may_resize()


def test_progress_ends_the_back_off() -> None:
    failures = BudgetedFailures(Budgets(failures=None), BackOff(first_s=1.0, longest_s=3.0))
    assert [failures.fail(0.0, 10).delay_s for _ in range(5)] == [0.0, 1.0, 2.0, 3.0, 3.0]
    assert failures.fail(0.0, 11).delay_s == 0.0


def test_budgets_come_back_only_with_progress_that_lasts() -> None:
    failures = BudgetedFailures(Budgets(failures=1, give_back_after_s=100.0), BackOff())
    failures.fail(0.0, best_step=10)
    failures.note_progress(1000.0, running_since=5.0, best_step=10)
    assert failures.failures == 1, "it runs, and has not passed the step at which it failed"
    failures.note_progress(104.0, running_since=5.0, best_step=11)
    assert failures.failures == 1
    failures.note_progress(105.0, running_since=5.0, best_step=11)
    assert failures.failures == 0


def test_an_error_is_the_same_whatever_its_addresses_and_only_at_its_step() -> None:
    failures = BudgetedFailures(Budgets(), BackOff())
    assert not failures.is_repeated(user_error(40, "bad <A at 0x7f>"), began_at=0.0, now=10.0)
    assert not failures.is_repeated(user_error(40, "bad <A at 0x80>"), began_at=0.0, now=11.0)
    assert not failures.is_repeated(user_error(41, "bad <A at 0x80>"), began_at=12.0, now=13.0)
    assert failures.is_repeated(user_error(40, "bad <A at 0x81>"), began_at=12.0, now=13.0)


@pytest.mark.parametrize(
    ("available", "goal", "waited_s", "size"),
    [
        (8, None, 0.0, 8),
        (9, None, 0.0, 8),
        (7, None, 9.0, None),  # more may come
        (7, None, 10.0, 4),  # 8 virtual workers
        (1, None, 99.0, None),  # too few
        (4, 4, 0.0, 4),
        (8, 4, 0.0, 8),  # it grows with the generation that is due anyway
        (3, 4, 29.0, None),
        (3, 4, 30.0, 2),
    ],
)
def test_sizes(available: int, goal: int | None, waited_s: float, size: int | None) -> None:
    scaling = MinMaxScaling(Sizes(min=2, max=8, divides=8, gather_s=10.0, replace_within_s=30.0))
    assert scaling.size(available, goal, waited_s) == size
    assert size is None or available >= scaling.least(goal, waited_s)


def test_growth_needs_an_allowed_size_and_a_generation_that_was_kept_a_while() -> None:
    scaling = MinMaxScaling(Sizes(min=1, max=8, divides=8, keep_s=60.0))
    assert scaling.grown_size(2, 3, running_s=100.0) is None
    assert scaling.grown_size(2, 5, running_s=59.0) is None
    assert scaling.grown_size(2, 5, running_s=60.0) == 4


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="no worker count from 3 to 3 divides 8"):
        Sizes(min=3, max=3, divides=8)
    with pytest.raises(ValueError, match="1 <= min <= max"):
        Sizes(min=3, max=2)


def test_a_host_is_set_aside_for_failures_within_a_window_and_comes_back() -> None:
    hosts = HostsSetAside(HostLimits(failures=3, window_s=60.0, aside_s=100.0), BackOff())
    others = ["b", "c"]
    assert not hosts.fail("a", 0.0, others) and not hosts.fail("a", 30.0, others)
    assert not hosts.fail("a", 60.0, others), "the first is forgotten"
    assert hosts.fail("a", 61.0, others)
    assert hosts.set_aside("a", 61.0) == 100.0 and hosts.is_aside("a")
    assert hosts.come_back(160.0) == [] and hosts.come_back(161.0) == ["a"]
    assert not hosts.is_aside("a") and not hosts.fail("a", 162.0, others)


def test_no_host_is_set_aside_where_all_fail_alike() -> None:
    hosts = HostsSetAside(HostLimits(failures=3, window_s=600.0), BackOff())
    names = ["a", "b", "c"]
    struck = [(float(at), names[at % 3]) for at in range(30)]
    assert not any(hosts.fail(name, at, [other for other in names if other != name]) for at, name in struck)
    assert [hosts.fail("a", 30.0 + at, ["b", "c"]) for at in range(12)] == [False] * 8 + [True] * 4
    assert hosts.fail("b", 700.0, ["a", "c"]) is False, "what is long ago says nothing"


def test_of_few_hosts_one_is_struck_more_often_before_it_is_suspected() -> None:
    def strikes(others: list[str], chance: float) -> int:
        hosts = HostsSetAside(HostLimits(failures=3, chance=chance), BackOff())
        return next(number for number in range(1, 20) if hosts.fail("a", 0.0, others))

    clusters = (["b"], ["b", "c"], list("bcdefgh"))
    assert [strikes(others, 0.05) for others in clusters] == [5, 3, 3]
    assert [strikes(others, 0.001) for others in clusters] == [10, 7, 4]


def test_starts_that_fail_are_tried_ever_later_until_one_becomes_a_member() -> None:
    hosts = HostsSetAside(HostLimits(failures=9), BackOff(first_s=4.0))
    hosts.start_failed("a", lived_s=1.0, now=0.0, others=[])
    assert hosts.may_start("a", 0.0)
    hosts.start_failed("a", lived_s=1.0, now=0.0, others=[])
    assert not hosts.may_start("a", 3.9) and hosts.may_start("a", 4.0) and hosts.may_start("b", 0.0)
    hosts.start_failed("a", lived_s=3600.0, now=10.0, others=[])
    assert hosts.may_start("a", 10.0), "that was a good start"
    hosts.start_failed("a", lived_s=1.0, now=10.0, others=[])
    hosts.start_worked("a")
    assert hosts.may_start("a", 10.0)


def test_starts_that_take_longer_to_fail_than_the_window_count_too() -> None:
    hosts = HostsSetAside(HostLimits(failures=3, window_s=10.0), BackOff())
    assert [hosts.start_failed("a", lived_s=20.0, now=at, others=[]) for at in (20.0, 40.0, 60.0)] == [
        False,
        False,
        True,
    ]


LIMITS = HangLimits(floor_s=30.0, factor=10.0, compile_s=1800.0)


@pytest.mark.parametrize(
    ("phases", "median_s", "allowed"),
    [
        (["step"], 1.0, 30.0),
        (["step"], 12.0, 120.0),
        (["step"], None, 1800.0),  # the first steps may compile
        (["step", "evaluate"], 1.0, LIMITS.evaluate_s),
        (["restore", "compile"], 1.0, LIMITS.compile_s),
    ],
)
def test_allowances(phases: list[str], median_s: float | None, allowed: float) -> None:
    assert MedianHangs(LIMITS).allowance_s(phases, median_s) == allowed


def report_all(progress: GenerationProgress, at: float, step: int, *workers: str) -> None:
    for worker in workers or progress.members:
        progress.report(worker, at, step, "step", StepIntervals())


def test_the_member_that_is_behind_is_named() -> None:
    progress = GenerationProgress(("w1", "w2", "w3"), now=0.0)
    report_all(progress, 1.0, 10)
    report_all(progress, 2.0, 11, "w1", "w3")
    heard = dict.fromkeys(progress.members, 33.0)
    assert MedianHangs(LIMITS).find(progress, heard, 31.0, 1.0, watched_from=0.0) is None
    hang = MedianHangs(LIMITS).find(progress, heard, 33.0, 1.0, watched_from=0.0)
    assert hang.worker == "w2" and hang.what == "has made no progress for 32 s at step 10 (30 s allowed)"


def test_of_members_at_the_same_step_the_silent_one_is_named() -> None:
    progress = GenerationProgress(("w1", "w2", "w3"), now=0.0)
    report_all(progress, 1.0, 10)
    heard = {"w1": 31.0, "w2": 31.5, "w3": 5.0}
    assert MedianHangs(LIMITS).find(progress, heard, 32.0, 1.0, watched_from=0.0).worker == "w3"


def test_members_that_are_through_do_not_hang() -> None:
    progress = GenerationProgress(("w1",), now=0.0)
    progress.completed["w1"] = None
    assert MedianHangs(LIMITS).find(progress, {}, 9999.0, 1.0, watched_from=0.0) is None


def test_the_median_is_the_runs_own_and_needs_a_few_reports() -> None:
    intervals, progress = StepIntervals(), GenerationProgress(("w1",), now=0.0)
    for step in range(4):
        assert intervals.median_s() is None
        progress.report("w1", 2.0 * step, step, "step", intervals)
    progress.report("w1", 9.0, 3, "evaluate", intervals)
    progress.report("w1", 500.0, 3, "step", intervals)
    progress.report("w1", 502.0, 4, "step", intervals)
    assert intervals.median_s() == 2.0, "an evaluation in between is no interval between steps"


def test_reports_that_were_overtaken_are_no_progress() -> None:
    intervals, progress = StepIntervals(), GenerationProgress(("w1",), now=0.0)
    progress.report("w1", 5.0, 50, "step", intervals)
    progress.report("w1", 4.0, 40, "checkpoint", intervals)
    progress.report("w1", 9.0, 50, "step", intervals)
    member = progress.members["w1"]
    assert (member.step, member.phase, member.at) == (50, "step", 5.0)


def test_a_step_is_believed_only_after_the_restore() -> None:
    progress = GenerationProgress(("w1",), now=0.0)
    progress.report("w1", 1.0, 0, "restore", StepIntervals())
    assert progress.start_step is None and not progress.stepped
    progress.report("w1", 2.0, 480, "compile", StepIntervals())
    assert progress.start_step == 480 and not progress.stepped
    progress.report("w1", 3.0, 481, "step", StepIntervals())
    assert progress.stepped


def test_progress_between_failures_gives_its_share_of_them_back() -> None:
    policy = BudgetedFailures(Budgets(failures=10, give_back_after_s=1800.0), BackOff())
    assert all(policy.fail(200.0 * number, best_step=number).goes_on for number in range(100)), "one in 180 s is earned"
    standing = BudgetedFailures(Budgets(failures=10, give_back_after_s=1800.0), BackOff())
    assert not all(standing.fail(200.0 * number, best_step=5).goes_on for number in range(12)), (
        "no step, nothing earned"
    )
    frequent = BudgetedFailures(Budgets(failures=10, give_back_after_s=1800.0), BackOff())
    assert not all(frequent.fail(100.0 * number, best_step=number).goes_on for number in range(12))


def test_policies_can_be_exchanged() -> None:
    class NoSecondChance(BudgetedFailures):
        def __init__(self) -> None:
            super().__init__(Budgets(failures=0), BackOff())

    settings = Settings()
    described = Policies.from_settings(settings)
    policies = Policies(NoSecondChance(), described.scaling, described.hosts, described.hangs)
    assert Supervisor(settings, policies).settings is settings
