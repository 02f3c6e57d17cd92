"""Errors as a notebook shows them: the sentences of the command line, without a stack of internals."""

from launch.exit_code import ExitCode, exit_code_of, explanation_of


class RunError(Exception):
    """A run that was refused or failed. The message is for the user; `__context__` is the error behind it.

    Attributes:
        code: the exit code that the command would have had.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.WRONG_REQUEST) -> None:
        super().__init__(message)
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a stack."""
        return [f"phalanx: {line}" for line in str(self).splitlines()]


def run_error(error: Exception) -> RunError:
    """What to raise, `from None`, in the place of an error."""
    return RunError(
        explanation_of(error).replace("(phalanx --debug shows where)", "(its __context__ shows where)"),
        exit_code_of(error),
    )
