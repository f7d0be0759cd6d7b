"""The one kind of failure that the demo reports: a line for the person who started it."""


class DemoError(Exception):
    """Something the demo needs is missing or went wrong; the text is one line and says what."""
