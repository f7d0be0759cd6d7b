"""On `PYTHONPATH`: SIGUSR1 lets the first thread of any Python process sleep for ever, SIGUSR2 go round in circles."""

import signal
import threading


def sleep(_number, _frame):
    threading.Event().wait()


def circle(_number, _frame):
    while True:
        pass


signal.signal(signal.SIGUSR1, sleep)
signal.signal(signal.SIGUSR2, circle)
