"""The second front end: HTTP in one process of Python, over one connection to the engine."""
