import re

from tests.trainer.goodput.journals import Story
from trainer.goodput.account import Account
from trainer.goodput.reading import account_of
from trainer.report.tables import NOTHING
from trainer.report.time_spent import draw, note


def killed_twice() -> Account:
    story = Story()
    story.begin()
    story.start("w3", "w4", "w5", "w6")
    story.ready(9.0, "w3", "w4", "w5", "w6")
    for at, dead, heirs in [(10.0, ("w1", "w2"), ("w3", "w4")), (20.0, ("w3", "w4"), ("w5", "w6"))]:
        for worker in dead:
            story.exit(at, worker, signal=9)
        story.form(*heirs, restore=80)
        story.report(at + 1.0, 80, "restore")
        story.report(at + 2.0, 80, "compile")
        story.report(at + 3.0, 90, "step")
    story.report(40.0, 200, "step")
    return account_of(story.records, {})


def test_each_failure_is_marked_where_it_happened_and_is_a_row_of_the_table():
    account = killed_twice()
    page = str(draw(account))
    places = [float(place) for place in re.findall(r'failure-mark" style="left:([0-9.]+)%"', page)]
    assert places == [25.0, 50.0]
    rows = re.findall(r"<tr>.*?</tr>", page)
    assert len(rows) == 3
    assert "worker 0 on a was killed (SIGKILL)" in rows[1] and "0:00:10" in rows[1]
    # Ten steps were done after step 80 and before the second kill.
    assert [re.findall(r"<td[^>]*>([^<]*)</td>", row)[-2:] for row in rows[1:]] == [["0", NOTHING], ["10", "7.0s"]]
    assert note(account).startswith("Each second of the wall time is in one colour. Marked: 2 failures, which cost 13s")


def test_the_strip_is_as_wide_as_the_wall_time():
    account = killed_twice()
    page = str(draw(account))
    spans = [(float(a), float(b)) for a, b in re.findall(r"M([0-9.]+) 0V1000H([0-9.]+)V0z", page)]
    assert min(start for start, _ in spans) == 0 and max(end for _, end in spans) == 1000
    covered = sum(end - start for start, end in spans)
    assert abs(covered - 1000) < 3 * len(spans)


def test_a_run_without_failures_has_no_table():
    story = Story()
    story.begin()
    account = account_of(story.records, {})
    assert "<table" not in str(draw(account))
    assert "Nothing failed" in note(account)
    assert "No time was recorded" in str(draw(account_of([], {})))
