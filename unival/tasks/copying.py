"""A task can be copied and pickled, to send a model to other processes."""

from typing import Any

from fairseq.tasks.fairseq_task import StatefulContainer


class TaskState(StatefulContainer):
    """fairseq's container of a task's state; its attributes are only looked up once it has any.

    fairseq's looks for ``_state`` in itself, also while a copy has none yet, and so forever.
    """

    def __getattr__(self, name: str) -> Any:
        if "_state" not in vars(self) or "_factories" not in vars(self):
            raise AttributeError(name)
        return super().__getattr__(name)
