"""What a second of a run can have been spent on. Each second of the wall time belongs to exactly one of these."""

from types import MappingProxyType

PRODUCTIVE = "productive"
DATA_WAIT = "data_wait"
CHECKPOINT = "checkpoint"
EVALUATE = "evaluate"
EXPORT = "export"
STARTUP = "startup"
COMPILE = "compile"
LOST = "lost"
DETECTION = "detection"
ENDED = "restart_ended"
STANDBY = "restart_standby"
BACK_OFF = "restart_back_off"
FORMED = "restart_formed"
BUILT = "restart_built"
RESTORED = "restart_restored"
FIRST_STEP = "restart_first_step"
DOWN = "restart_down"
RESOURCES = "resources"
CLOSING = "closing"

# In the order in which they are shown.
PHASES = MappingProxyType(
    {
        PRODUCTIVE: "steps that count",
        DATA_WAIT: "steps waited for data",
        CHECKPOINT: "steps waited for a checkpoint or a snapshot",
        EVALUATE: "evaluation",
        EXPORT: "export",
        STARTUP: "start: processes, model, data",
        COMPILE: "first call: tracing and compiling",
        LOST: "steps that had to be done again",
        DETECTION: "a failure was not known yet",
        ENDED: "restart: until all members had ended",
        STANDBY: "restart: until enough standbys were ready",
        BACK_OFF: "restart: back-off",
        FORMED: "restart: until the group was formed",
        BUILT: "restart: data and model",
        RESTORED: "restart: state and input",
        FIRST_STEP: "restart: first call",
        DOWN: "nothing ran between two launches",
        RESOURCES: "waiting for hosts",
        CLOSING: "the end: last messages, processes that end",
    }
)
RESTART = (ENDED, STANDBY, BACK_OFF, FORMED, BUILT, RESTORED, FIRST_STEP, DOWN)
# What a failure costs besides the work that it destroys; one of them may last while it is being mended.
OF_A_FAILURE = (DETECTION, *RESTART, RESOURCES)
# What is done over again when a run goes on from an earlier step.
REPEATED = (PRODUCTIVE, DATA_WAIT, CHECKPOINT, EVALUATE, EXPORT)
