"""An account in words."""

from trainer.goodput.account import Account
from trainer.goodput.phases import PRODUCTIVE
from trainer.observe.number_text import format_duration

_RARE = 0.03


def sentence(account: Account) -> str:
    """One sentence: `goodput 87.3% of 1m10s; 2 failures cost 7.4s, 30 steps were done again`.

    The largest other shares are named where no failure explains the time.
    """
    if account.goodput is None:
        return "nothing was recorded that goodput could be told from"
    text = f"goodput {100 * account.goodput:.1f}% of {format_duration(account.wall_s)}"
    if account.replacements:
        count = account.replacements
        text += f"; {count} worker{'s were' if count > 1 else ' was'} replaced while the others went on"
    if account.interruptions:
        count = len(account.interruptions)
        text += f"; {count} failure{'s' if count > 1 else ''} cost {format_duration(account.failure_cost_s)}"
        if account.steps_lost:
            steps = account.steps_lost
            text += f", {steps} step{' was' if steps == 1 else 's were'} done again"
        return text
    others = [(seconds, phase) for phase, seconds in account.seconds.items() if phase != PRODUCTIVE]
    large = [
        f"{phase.replace('_', ' ')} {format_duration(seconds)}"
        for seconds, phase in sorted(others, reverse=True)[:2]
        if seconds > _RARE * account.wall_s
    ]
    return text + (f" ({', '.join(large)})" if large else "") + ("" if account.replacements else ", no failures")


def scalars(account: Account) -> dict[str, float]:
    """What TensorBoard shows: below `goodput/` the share, failures, replacements, lost steps, and seconds by phase."""
    if account.goodput is None:
        return {}
    values = {
        "goodput/share": account.goodput,
        "goodput/failures": float(len(account.interruptions)),
        "goodput/replacements": float(account.replacements),
        "goodput/steps_lost": float(account.steps_lost),
    }
    return values | {f"goodput/{phase}_s": seconds for phase, seconds in account.seconds.items()}
