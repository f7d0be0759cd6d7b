"""The engine process and the worker processes that it starts."""
