"""hiplan's exceptions, grouped by who has to react.

    HiplanError
    ├── UserError            the user: fix the option, file, config or call, and run again
    │   ├── ConfigError
    │   ├── TaskError        a task specification that no environment can build
    │   ├── CheckpointError
    │   └── EndpointError    an endpoint that is unreachable, refuses, or returns an invalid answer
    ├── ModelMistake         the model: its text cannot be used, and it receives the message
    │   ├── PlanFormatError
    │   └── ActionFormatError
    ├── EnvironmentFault     no one: an environment crashed or hung, and only its episode ends
    └── InternalError        hiplan's developers: a bug, please report it

A message is one line with the offending value (``!r``), what was expected, and the cure.
"""


class HiplanError(Exception):
    """Base class of all errors that hiplan raises."""


class UserError(HiplanError):
    """The caller made a mistake; the message says in one line how to correct it."""


class ConfigError(UserError):
    """A config field, option or file that cannot be used."""


class TaskError(UserError):
    """A task specification that no environment can build."""


class CheckpointError(UserError):
    """A checkpoint folder that is missing, incomplete, or written for other weights."""


class EndpointError(UserError):
    """An endpoint that is unreachable, refuses a request, or returns an invalid answer."""


class ModelMistake(HiplanError):
    """The model wrote a text that cannot be used; ``str(error)`` tells the model what to fix."""


class PlanFormatError(ModelMistake):
    """A plan text that does not parse, or whose steps are inconsistent."""


class ActionFormatError(ModelMistake):
    """A text that contains no action."""


class EnvironmentFault(HiplanError):
    """An environment failed; its episode ends, and all other episodes continue."""


class InternalError(HiplanError):
    """An internal invariant of hiplan was violated."""
