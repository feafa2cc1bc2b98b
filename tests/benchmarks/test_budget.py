"""What a budget of instructions lets pass, and what it tells."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import __main__ as command
from tests.benchmarks import budget
from tests.benchmarks.__main__ import HOLDS, NOT_JUDGED, OVER
from tests.benchmarks.budget import Counts, NoBaselineError, over_budget
from tests.benchmarks.work import A_BLOCK, WORK

RECORDED = Counts(4_000, {"receive": 100_000, "dispatch": 10_000}, {"orjson": "3.10.0"})


def counted(**instructions: float) -> Counts:
    return replace(RECORDED, instructions={**RECORDED.instructions, **instructions})


def test_the_same_again_holds() -> None:
    assert over_budget(RECORDED, RECORDED) == []


@given(st.floats(0.01, 1.029))
def test_what_costs_less_or_hardly_more_holds(times: float) -> None:
    assert over_budget(RECORDED, counted(receive=100_000 * times)) == []


@given(st.floats(1.031, 100))
def test_what_costs_more_is_named_alone(times: float) -> None:
    (line,) = over_budget(RECORDED, counted(dispatch=10_000 * times))
    assert line.startswith("dispatch: ")
    assert f"{times - 1:+.1%}" in line


def test_what_is_saved_in_one_place_pays_for_nothing_in_another() -> None:
    assert len(over_budget(RECORDED, counted(receive=50_000, dispatch=10_400))) == 1


@pytest.mark.parametrize("times", [0.989, 1.011])
def test_the_same_build_is_judged_as_far_as_its_own_counts_differ(times: float) -> None:
    again = replace(counted(dispatch=10_400), yardstick=RECORDED.yardstick * times)
    assert len(over_budget(RECORDED, again)) == 1


@pytest.mark.parametrize("times", [0.97, 1.03])
def test_another_build_of_python_is_not_judged(times: float) -> None:
    other = replace(RECORDED, yardstick=RECORDED.yardstick * times)
    with pytest.raises(NoBaselineError, match="another build"):
        over_budget(RECORDED, other)


def test_other_work_is_not_judged() -> None:
    with pytest.raises(NoBaselineError, match="record it anew"):
        over_budget(RECORDED, counted(publish=1))


def test_other_packages_are_named() -> None:
    newer = replace(RECORDED, packages={"orjson": "3.11.0"})
    assert budget.other_packages(RECORDED, newer) == ["orjson is 3.11.0, and was 3.10.0"]
    assert budget.other_packages(RECORDED, RECORDED) == []


def test_what_is_recorded_is_read_again_by_the_interpreters_name(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(NoBaselineError, match=r"CPython 3\.11"):
        budget.load(path, "CPython 3.11 x86_64")
    budget.save(path, "CPython 3.11 x86_64", RECORDED)
    budget.save(path, "CPython 3.12 x86_64", counted(receive=1))
    assert budget.load(path, "CPython 3.11 x86_64") == RECORDED
    assert budget.load(path, "CPython 3.12 x86_64") == counted(receive=1)
    with pytest.raises(NoBaselineError, match=r"CPython 3\.13"):
        budget.load(path, "CPython 3.13 x86_64")


@pytest.mark.parametrize("name", WORK)
def test_each_piece_of_work_can_be_done(name: str) -> None:
    do, messages = WORK[name]
    assert messages % A_BLOCK == 0
    do(2 * A_BLOCK)


def test_the_baseline_is_of_the_work_that_is_counted() -> None:
    recorded = budget.load(budget.BASELINE, "CPython 3.11 x86_64")
    assert recorded.instructions.keys() == WORK.keys()


@pytest.mark.parametrize(
    ("costs", "ends_with", "says"),
    [
        ([10_200], HOLDS, "+2.0%"),
        ([10_600, 10_400], OVER, "over the budget: dispatch: 10,400"),
        # A change makes every count dearer, a busy machine one.
        ([10_600, 10_100], HOLDS, "+1.0%"),
        ([9_000], HOLDS, "-10.0%"),
    ],
)
def test_the_check_ends_with_its_verdict(
    costs: list[float],
    ends_with: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "baseline.json"
    budget.save(path, budget.interpreter(), RECORDED)
    each = iter(costs)
    monkeypatch.setattr(budget, "BASELINE", path)
    monkeypatch.setattr(
        command, "count", lambda: (RECORDED.yardstick, counted(dispatch=next(each)).instructions)
    )
    assert command.check(record=False) == ends_with
    assert not list(each)
    assert says in capsys.readouterr().out


def test_where_nothing_can_be_counted_the_check_says_why(tmp_path: Path) -> None:
    called = [sys.executable, "-m", "tests.benchmarks", "--check"]
    done = subprocess.run(
        called, env={**os.environ, "PATH": str(tmp_path)}, stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == NOT_JUDGED
    # Of another interpreter than was recorded the baseline is missing too.
    assert done.stdout in (
        "not judged: there is no valgrind here\n",
        f"not judged: no baseline was recorded for {budget.interpreter()}\n",
    )
