"""What can go wrong, split by who has to react.

    HiplanError
    ├── UserError            a wrong option, file, config or call: one clear line, fix and run again
    │   ├── ConfigError
    │   ├── TaskError        a task specification no environment can build
    │   ├── CheckpointError
    │   └── EndpointError    an endpoint that cannot be reached, refuses, or answers with something else
    ├── ModelMistake         the model's text cannot be used: its message is sent back to the model
    │   ├── PlanFormatError
    │   └── ActionFormatError
    ├── EnvironmentFault     an engine crashed or hung: ends that episode only
    └── InternalError        a broken promise of hiplan's own: please report it

Messages give the offending value with ``!r``, what was expected, and the cure.
"""


class HiplanError(Exception):
    """Base of every error hiplan raises on purpose."""


class UserError(HiplanError):
    """A mistake of the person who calls; the message is the one line they need."""


class ConfigError(UserError):
    """A config field, option or file that cannot be used."""


class TaskError(UserError):
    """A task specification that no environment can build."""


class CheckpointError(UserError):
    """A checkpoint folder that is missing, unfinished or made for other weights."""


class EndpointError(UserError):
    """An endpoint that cannot be reached, refuses a request, or answers with something else."""


class ModelMistake(HiplanError):
    """The model wrote something unusable; ``str(error)`` tells the model what to mend."""


class PlanFormatError(ModelMistake):
    """A plan text that does not parse or whose steps contradict each other."""


class ActionFormatError(ModelMistake):
    """An action text that holds no action."""


class EnvironmentFault(HiplanError):
    """An environment's engine failed; the episode ends, its siblings go on."""


class InternalError(HiplanError):
    """hiplan broke a promise of its own."""
