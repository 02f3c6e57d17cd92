import json
from pathlib import Path

from benchmarks import supervisor


def test_a_small_fleet_is_measured_from_end_to_end(tmp_path: Path, capsys) -> None:
    result = tmp_path / "result.json"
    assert supervisor.main(["--quick", "--hosts", "50", "--json", str(result)]) == 0
    targets = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("target ")]
    assert [(line[1], line[3]) for line in targets] == [
        ("supervisor_cpu_share", "<1.0"),
        ("supervisor_events_per_s", ">=100"),
    ]
    figures = json.loads(result.read_text())["figures"]
    assert figures["hosts"] == 50 and 0 < figures["steady"]["cpu"] < 1 and figures["recovery"]["recovery_s"] > 0
