"""Options that would do nothing are refused, so that nobody believes in an effect that is not there.

Each function names the options that are idle in a request, with the reason; what a method can do is asked of the
method, never of its name. `refuse_idle` raises an error if one of them was given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from headwater.cli.config import Context
from headwater.cli.options import LoadingOptions, ReadingOptions
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.methods.method import Method
    from headwater.unlearning.capabilities import UnlearningMethod

Idle = Mapping[str, str]
"""Parameter name to the reason why it does nothing in this request."""

LOADING = tuple(entry.name for entry in fields(LoadingOptions))
READING = tuple(entry.name for entry in fields(ReadingOptions))


_OF_STUDENTS = ("student", "student_cost", "student_proxy", "force")


def refuse_idle(context: Context, idle: Idle) -> None:
    """Raise `UsageError` if an option was given that does nothing.

    A run file holds every setting of its run, so an option from a file counts only if it is not the default.
    """
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in idle and _given(context, parameter):
            words = " ".join(context.command_path.split()[1:])
            what = f"{parameter.opts[0]} would do nothing: {idle[name]}"
            raise UsageError(what, where=words, remedy="leave it out")


def _given(context: Context, parameter: Any) -> bool:
    source = getattr(context.get_parameter_source(parameter.name), "name", "")
    default = (parameter.default() if callable(parameter.default) else parameter.default) or None
    value = context.params.get(parameter.name) or None
    return source in ("COMMANDLINE", "ENVIRONMENT") or (source == "DEFAULT_MAP" and _plain(value) != _plain(default))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def idle_when(names: tuple[str, ...], reason: str, *, idle: bool) -> dict[str, str]:
    """The names with the reason, if they are idle."""
    return dict.fromkeys(names, reason) if idle else {}


def idle_in_trace(*, prompt: bool, response: bool, ann: bool, grouped: bool) -> Idle:
    """Of `headwater trace`."""
    return {
        **idle_when(("response", "span"), "it belongs to a --prompt, and there is none", idle=not prompt),
        **idle_when(("columns",), "it names columns of --queries, and there are none", idle=prompt),
        **idle_when(("max_new_tokens",), "the response is given, so none is generated", idle=response),
        **idle_when(("max_memory",), "--engine ann does not scan the rows", idle=ann),
        **idle_when(("damping",), "it belongs to --group-by, which is not given", idle=not grouped),
    }


def idle_in_value(method: Method, *, model: bool) -> Idle:
    """Of `headwater value` with a pool."""
    name = method.spec.name
    unread = f"the method '{name}' reads no model"
    return {
        **idle_when(("model", *LOADING, *READING), unread, idle=not method.reads_model),
        **idle_when(LOADING, "there is no --model to load", idle=method.reads_model and not model),
        **idle_when(_OF_STUDENTS, f"the method '{name}' trains no student", idle=method.learning is None),
    }


def idle_in_scoring(*, by_student: bool, reads: Collection[str]) -> Idle:
    """Of `headwater value score`; `reads` is what the student reads."""
    if not by_student:
        return dict.fromkeys(("force", "student_proxy"), "no student is used")
    small = {"proxy", "encoder"} & set(reads)
    return {
        **idle_when(("model", *LOADING), "this student reads no sketches of the model", idle="model" not in reads),
        **idle_when(("tokens_per_batch",), "a student reads rows as it learned to", idle=True),
        **idle_when(("student_proxy",), "this student reads no proxy or encoder", idle=not small),
    }


def idle_in_unlearning(method: UnlearningMethod, given: Mapping[str, Any]) -> Idle:
    """Of `headwater unlearn`; `given` holds the options."""
    from headwater.unlearning.objectives import OBJECTIVES

    draws = idle_when(("draw",), "there is no --retain-from to draw from", idle=not given["retain_from"])
    if given.get("from_trace"):
        draws = {}
    weighing = ("weights", "influence", "settings", "compat")
    objective = OBJECTIVES[method.name] if method.trains else None
    if objective is None:
        losses = ("ceiling", "beta", "keep", "dynamic")
        training = ("rate", "steps", "full", "rank", "harden", "checkpointing", "save_every")
        return {**draws, **dict.fromkeys((*losses, *training, *weighing), "the method does not train")}
    weighed, weights = objective.weights == "influence", given["weights"]
    without = f"--weights {weights} takes no influence"
    answered = objective.clean > 0 or objective.prefers
    return {
        **draws,
        **idle_when(("rank",), "--full trains all weights and no adapter", idle=bool(given["full"])),
        **idle_when(weighing, f"'{objective.name}' does not weigh rows by influence", idle=not weighed),
        **idle_when(weighing[1:3], without, idle=weighed and weights not in ("influence", "shuffled")),
        **idle_when(("dynamic",), f"'{objective.name}' does not weigh rows by loss", idle=objective.weights != "loss"),
        **idle_when(("keep",), f"'{objective.name}' reads no retain rows", idle=not objective.retain_share),
        **idle_when(
            ("trigger", "clean_column", "right"), f"'{objective.name}' uses no right answers", idle=not answered
        ),
        **idle_when(("guard",), "--bound says the same as a loss", idle=given.get("bound") is not None),
        **idle_when(
            ("stop",), "there is no bound to end at", idle=given.get("bound") is None and not given.get("guard", 1)
        ),
    }
