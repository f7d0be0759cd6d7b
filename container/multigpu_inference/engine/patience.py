"""How long the workers of a group may take for a task, before they are taken for hung."""

from __future__ import annotations

from dataclasses import dataclass

# A fresh worker's first task may take what a later one may, and this many times what the slowest first task so far has taken.
_FIRST_TASKS = 2


@dataclass(slots=True)
class Patience:
    """Limits in seconds; shared by the workers of a group, because what the first task of one takes is a measure for the next.

    Attributes:
        first_task_s: For a first task, with which many models warm up, as long as none of the group has answered one.
        task_s: For any later one.
        late_tasks: How many of a worker's tasks must be over their time before it is killed, and the others with it.
        slowest_first_s: What the slowest first task took that has been answered; None: none has.
    """

    first_task_s: float
    task_s: float
    late_tasks: int = 1
    slowest_first_s: float | None = None

    def limit_s(self, *, first: bool) -> float:
        """How long a task may take, the first of its worker or a later one."""
        if not first:
            return self.task_s
        if self.slowest_first_s is None:
            return max(self.task_s, self.first_task_s)
        # Else a request that hangs whatever it meets would hold each fresh worker as long as a model may take to warm up.
        return max(self.task_s, min(self.first_task_s, self.task_s + _FIRST_TASKS * self.slowest_first_s))

    def first_task_took(self, seconds: float) -> None:
        """A worker has answered its first task."""
        self.slowest_first_s = max(seconds, self.slowest_first_s or 0.0)
