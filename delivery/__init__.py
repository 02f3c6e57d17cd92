"""From a finished run to something that others use."""
