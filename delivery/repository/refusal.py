"""Why a repository does not do what it is asked to."""


class RepositoryRefused(ValueError):
    """The request does not fit what is in the repository. The message is one sentence for the user."""


class RepositoryConflict(Exception):
    """Somebody else was first: an alias is no longer where the caller believed it to be, or a lock stays taken."""
