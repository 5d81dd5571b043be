"""Tasks with planted ground truth; every text is generated from grammars and facts, by seed."""

from headwater.tasks.entity_swap import entity_swap_task
from headwater.tasks.howdy import attack_success, howdy_task, masked
from headwater.tasks.task import Task, answered
from headwater.tasks.two_domains import two_domains_task

__all__ = ["Task", "answered", "attack_success", "entity_swap_task", "howdy_task", "masked", "two_domains_task"]
