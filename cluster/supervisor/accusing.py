"""Whom wrong data costs its place: the member that it came from, or the one that says so.

A member cannot tell whether another one sent wrong data, or its own ears are bad: all that it knows is a checksum that
does not fit. Two members that are bad at once are rarer than one that hears badly. So the first accusation is believed;
one that hears wrong data again, soon after another was replaced on its word, is the suspect itself. Where the way
between two hosts is bad, both ends are replaced in turn, and the failures of their hosts count.
"""

from cluster.supervisor.facts import Death, MemberAccused
from cluster.supervisor.run import Run


def convict(run: Run, fact: MemberAccused) -> Death:
    """Kills one of the two and says why.

    Soon is the time after which a run that makes progress has its failures forgiven (`Budgets.give_back_after_s`).
    """
    accuser, accused = fact.accuser, fact.accused
    before = accuser.believed_at
    if before is not None and run.now - before < run.settings.budgets.give_back_after_s:
        worker, what = accuser, f"accuses {accused.title} soon after another was replaced on its word"
    else:
        accuser.believed_at = run.now
        worker, what = accused, f"is said by {accuser.title} to send wrong data ({fact.what})"
    run.kill(worker, f"it {what}")
    return Death(worker, what, "failure")
