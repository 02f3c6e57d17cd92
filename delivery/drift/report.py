"""One self-contained HTML page that puts training and serving side by side, a column a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delivery.drift.monitor import Drift, DriftMonitor
from trainer.report.markup import Markup, element

_STYLE = """
:root { --paper: #fbfaf7; --ink: #1e1c19; --soft: #6d675d; --hair: #e4dfd4; --training: #a9b8da; --serving: #c8511b;
  --bad: #b3261e; --good: #2f7a4b; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #161513; --ink: #ece7de; --soft: #a39c90; --hair: #322f2a;
  --training: #46557a; --serving: #f5965a; --bad: #ff8a80; --good: #7fcf9b; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 44px 32px 64px; }
h1 { font: 400 38px/1.15 Palatino, P052, "Liberation Serif", serif; margin: 8px 0 4px; overflow-wrap: anywhere; }
p { margin: 0; color: var(--soft); }
.state { font-weight: 600; color: var(--good); } .state.bad { color: var(--bad); }
section { display: grid; grid-template-columns: 230px minmax(0, 1fr); gap: 28px; border-top: 1px solid var(--hair);
  margin-top: 22px; padding-top: 18px; }
h2 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
dl { margin: 6px 0 0; font-size: 13px; color: var(--soft); }
dl div { display: flex; justify-content: space-between; gap: 12px; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.bars { display: flex; align-items: flex-end; gap: 6px; height: 120px; }
.bars div { flex: 1; display: flex; align-items: flex-end; gap: 2px; height: 100%; min-width: 4px; }
.bars i { flex: 1; border-radius: 2px 2px 0 0; min-height: 1px; } .training { background: var(--training); }
.serving { background: var(--serving); }
.ends { display: flex; justify-content: space-between; font-size: 12px; color: var(--soft); margin-top: 4px; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  margin: 0 6px 0 14px; vertical-align: -1px; }
@media (max-width: 640px) { section { grid-template-columns: minmax(0, 1fr); } }
"""

_MOST_NAMED = 12  # bars that have room for a name each


def drift_page(name: str, monitor: DriftMonitor, drift: Drift) -> str:
    """The page; columns that have drifted come first.

    Args:
        name: Of the model and its version.
        monitor: What was fed.
        drift: What its check found.
    """
    counts = monitor.counts()
    order = [*drift.alarms, *(column for column in drift.scores if column not in drift.alarms)]
    body = [
        element("p", _sentence(drift), class_="state bad" if drift.alarms else "state"),
        element("h1", name),
        element(
            "p",
            f"{drift.num_compared:,} newest of {drift.num_seen:,} samples beside the training sample",
            element("span", element("i", class_="training"), "training", element("i", class_="serving"), "serving",
                    class_="key"),
        ),
        *(_row(column, monitor, drift, counts[column]) for column in order),
    ]  # fmt: skip
    if drift.missing:
        body.append(element("section", element("h2", "Not in any request"), element("p", ", ".join(drift.missing))))
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", f"Drift of {name}"),
        element("style", Markup(_STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', element('main', *body)), lang='en')}\n"


def _sentence(drift: Drift) -> str:
    if not drift.scores:
        return "Too few samples to judge"
    if not drift.alarms:
        return "No drift"
    return f"{len(drift.alarms)} of {len(drift.scores)} columns have drifted"


def _row(column: str, monitor: DriftMonitor, drift: Drift, live: np.ndarray) -> Markup:
    score, reference = drift.scores[column], monitor.references[column]
    facts = [("PSI", f"{score.psi:.3f}"), ("alarm above", f"{score.psi_limit:.3f}")]
    if score.ks is not None:
        facts.append(("KS distance", f"{score.ks:.3f}"))
    facts.append(("changes in the stream", str(drift.changes.get(column, 0))))
    told = element("dl", *(element("div", element("dt", key), element("dd", value)) for key, value in facts))
    state = element("p", "drifted" if score.alarm else "stable", class_="state bad" if score.alarm else "state")
    shares = live / max(live.sum(), 1)
    return element("section", element("div", element("h2", column), state, told),
                   _bars(reference.labels, reference.shares, shares, reference.is_number))  # fmt: skip


def _bars(labels: Sequence[str], training: np.ndarray, serving: np.ndarray, is_number: bool) -> Markup:
    used = [index for index in range(len(labels)) if training[index] or serving[index]]
    top = max(float(training.max()), float(serving.max()), 1e-9)
    bars = [
        element(
            "div",
            *(
                element("i", class_=kind, style=f"height:{100 * shares[index] / top:.1f}%")
                for kind, shares in (("training", training), ("serving", serving))
            ),
            title=f"{labels[index]}: training {training[index]:.1%}, serving {serving[index]:.1%}",
        )
        for index in used
    ]
    if len(used) <= _MOST_NAMED and not is_number:
        ends = [element("span", labels[index], style="flex:1;text-align:center") for index in used]
    else:
        ends = [element("span", labels[index]) for index in dict.fromkeys([used[0], used[-1]])] if used else []
    return element("div", element("div", *bars, class_="bars"), element("div", *ends, class_="ends"))
