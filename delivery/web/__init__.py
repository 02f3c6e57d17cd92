"""A folder that runs an exported model in a browser, with no network."""
