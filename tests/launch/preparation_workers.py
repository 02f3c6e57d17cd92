"""Workers that hold before one of the tasks, and a job of them that is killed as a whole.

python -m tests.launch.preparation_workers RAW FOLDER HOLD
"""

import os
import sys
from pathlib import Path

from tests.cluster.crew_orders import hold
from trainer.preparation import tasks
from trainer.preparation.tasks import Done, Task

HOLD = "PHALANX_TEST_HOLD"


def carry_out(task: Task) -> Done:
    """Holds at the part of the file `hold.csv`, and at the shard 1; each time there is a folder for it."""
    place = Path(os.environ.get(HOLD, "/nowhere")) / task.kind
    if place.is_dir() and ("hold" in task.name or (task.kind == "shard" and task.shard == 1)):
        hold(place)
    return tasks.carry_out(task)


if __name__ == "__main__":
    from launch import data_preparation

    data_preparation.carry_out = carry_out
    raw, folder = sys.argv[1:]
    request = data_preparation.make_request(raw, None, 3, target="late")
    data_preparation.prepare_data(request, Path(folder), workers=2)
