"""Which weights each role has: joint, split, partial or separate, behind one interface.

A *unit* is a set of weights that is trained, frozen and saved together: a LoRA adapter, or with ``full`` a whole model.
A role has one unit, or with ``partial`` two that are added, on its *body*, a base model. All other code is the same for
every mode. ``acting_as`` selects a role's adapters and afterwards restores the active adapters and every
``requires_grad`` flag: with the wrong adapter left active, training would change nothing and raise no error.
``guarded`` checks each optimizer step for this and similar mistakes.

For rollouts, ``merged`` gives a copy of the base with the role's adapters merged in, which decodes about 1.4 times as
fast as a base with separate adapters. The trained weights themselves are never modified.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from hiplan.errors import CheckpointError, ConfigError, InternalError
from hiplan.models.settings import UNITS, WeightsConfig
from hiplan.models.shards import here, shard, split_like, whole
from hiplan.trace import Role


class Body:
    """A base model, wrapped by PEFT if it has adapters.

    ``plain``: the base without adapters. It shares the base's tensors, so it takes no memory.
    """

    def __init__(self, base: Any, units: tuple[str, ...], lora: LoraConfig | None) -> None:
        self.units = units
        self.plain: Any = sharing(base) if lora else base
        self.model: Any = base
        if lora:
            first, *rest = units
            try:
                self.model = get_peft_model(base, lora, adapter_name=first)
            except ValueError as error:
                raise ConfigError(f"weights.lora.targets: {str(error).splitlines()[0]}") from None
            for name in rest:
                self.model.add_adapter(name, lora)
            self._check_layers()
        self.model.eval()
        names = {id(p): name for name, p in self.model.named_parameters()}
        self.frozen = {names[id(p)]: p for p in self.model.parameters() if lora and not is_lora(names[id(p)])}

    def _check_layers(self) -> None:
        """Raises ``ConfigError`` for adapters on anything but linear layers with weights of their own."""
        plain = dict(self.plain.named_parameters())
        for name, layer in self.model.get_base_model().named_modules():
            odd = isinstance(layer, LoraLayer) and (len(layer.lora_embedding_A) or isinstance(layer, ParamWrapper))
            if odd or (isinstance(layer, LoraLayer) and f"{name}.weight" not in plain):
                raise ConfigError(
                    f"weights.lora.targets would adapt {name!r}, which is not a linear layer with weights of its own; "
                    "list the layers to adapt, such as [q_proj, k_proj, v_proj, o_proj]"
                )

    @property
    def config(self) -> Any:
        return self.plain.config


def is_lora(name: str) -> bool:
    """Whether PEFT's parameter of this name belongs to a LoRA adapter."""
    return ".lora_" in name


def sharing(module: Any, copied: tuple[Tensor, ...] = ()) -> Any:
    """A copy of a module that shares all of its tensors except those in ``copied``."""
    new = {id(t) for t in copied}
    shared = [t for t in (*module.parameters(), *module.buffers()) if id(t) not in new]
    return copy.deepcopy(module, {id(t): t for t in shared})


class RoleWeights:
    """The weights of both roles.

    ``base`` is modified: PEFT wraps its linear layers. ``executor_base``: the executor's base where weights are
    ``separate``; default a copy of ``base``. ``seed``: for the adapters' initial values.
    """

    def __init__(
        self, base: Any, config: WeightsConfig | None = None, seed: int = 0, executor_base: Any = None
    ) -> None:
        self.config = config or WeightsConfig()
        self.units: dict[Role, tuple[str, ...]] = UNITS[self.config.mode]
        self._merged: dict[tuple[str, ...], tuple[tuple[int, ...], nn.Module]] = {}  # by units: version, copy
        self._uses: Counter[str] = Counter()  # of each unit, through ``acting_as``
        self.sharded = False
        lora = self._lora_config() if self.config.method == "lora" else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.config.mode == "separate":
                executor = copy.deepcopy(base) if executor_base is None else executor_base
                self.bodies = [Body(base, ("planner",), lora), Body(executor, ("executor",), lora)]
            else:
                self.bodies = [Body(base, tuple(dict.fromkeys(sum(self.units.values(), ()))), lora)]
        self._body = {unit: body for body in self.bodies for unit in body.units}
        self.train_only(())

    def _lora_config(self) -> LoraConfig:
        lora = self.config.lora
        targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
        return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)

    def to(self, device: torch.device) -> None:
        """Move all weights."""
        for body in self.bodies:
            body.model.to(device)
            body.plain.to(device)  # for its buffers: the parameters are the model's and have moved already
        self._merged.clear()

    def shard(self, device: torch.device) -> None:
        """Split all weights over the processes (FSDP2).

        From then on all processes must make the same calls in the same order.
        """
        for body in self.bodies:
            shard(body.model, device)
            body.plain = body.model.get_base_model() if self.config.method == "lora" else body.model
        self.sharded = True

    @property
    def mergeable(self) -> bool:
        """Whether adapters can be merged into a copy of the base: not if it is quantized or split over processes."""
        return self.config.quantize == "none" and not self.sharded

    def body(self, role: Role) -> Body:
        """The base model the role's units are on."""
        return self._body[self.units[role][0]]

    # -- parameters --------------------------------------------------------------------------

    def unit(self, name: str) -> dict[str, nn.Parameter]:
        """A unit's parameters. Names leave out the adapter's name, so they are the same for every adapter."""
        model = self._body[name].model
        if self.config.method == "full":
            return dict(model.named_parameters())
        part = f".{name}."
        return {key.replace(part, "."): p for key, p in model.named_parameters() if is_lora(key) and part in key}

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The parameters of all the role's units, as ``{unit}.{name}``."""
        return {f"{unit}.{key}": p for unit in self.units[role] for key, p in self.unit(unit).items()}

    def train_only(self, roles: tuple[Role, ...]) -> None:
        """Enable gradients for the units of these roles and for no others (see ``WeightsConfig.shared``)."""
        for body in self.bodies:
            body.model.requires_grad_(False)
        for name in self.config.trained(roles):
            for parameter in self.unit(name).values():
                parameter.requires_grad_(True)

    @contextmanager
    def acting_as(self, role: Role) -> Iterator[Any]:
        """The model with the role's adapters active; on exit, the adapters active before are restored."""
        try:
            with self._switched(role) as model:
                yield model
        finally:
            self._uses.update(self.units[role])

    @contextmanager
    def _switched(self, role: Role) -> Iterator[Any]:
        model = self.body(role).model
        if self.config.method == "full":
            yield model
            return
        active = list(model.active_adapters)
        _activate(model, list(self.units[role]))
        try:
            yield model
        finally:
            _activate(model, active)

    @contextmanager
    def guarded(self, learning: Collection[str]) -> Iterator[None]:
        """Wrap one optimizer step in this. Raises ``InternalError`` if it changed other parameters than it should.

        Every parameter of the units ``learning`` must have a finite gradient, and must change unless that gradient is
        zero. All other parameters must stay the same.
        """
        meant = {f"{unit}.{key}": p for unit in learning for key, p in self.unit(unit).items()}
        others = {f"{u}.{key}": p for u in self._body if u not in learning for key, p in self.unit(u).items()}
        missing = [name for name, p in meant.items() if p.grad is None or not bool(torch.isfinite(here(p.grad)).all())]
        if missing:
            raise InternalError(f"no finite gradient reached {_named(missing)}; was another adapter left active?")
        before = {name: here(p.detach()).clone() for name, p in (meant | others).items()}
        nonzero = {name for name, p in meant.items() if p.grad is not None and bool(here(p.grad).any())}
        frozen = [(name, p, p._version) for body in self.bodies for name, p in body.frozen.items()]
        yield
        unchanged = [name for name in sorted(nonzero) if torch.equal(here(meant[name]), before[name])]
        changed = [n for n, p in others.items() if not torch.equal(here(p), before[n])]
        changed += [n for n, p, version in frozen if p._version != version or p.grad is not None]
        if unchanged:
            raise InternalError(f"the update did not change {_named(unchanged)}; are they parameters of the optimizer?")
        if changed:
            units = ", ".join(learning)
            raise InternalError(f"the update of {units} changed {_named(changed)}, which should be frozen")

    def version(self, role: Role) -> tuple[int, ...]:
        """Differs after every change of the role's parameters, and after every ``acting_as``.

        Torch counts in-place writes, but not those of fused optimizers. So each use through ``acting_as`` counts as a
        possible change.
        """
        uses = (self._uses[unit] for unit in self.units[role])
        return (*uses, *(p._version for p in self.parameters(role).values()))

    # -- rollouts ----------------------------------------------------------------------------

    @contextmanager
    def sampling(self, role: Role) -> Iterator[Any]:
        """The fastest model for the role, without gradients: a merged copy where ``mergeable``."""
        if self.mergeable:
            with torch.inference_mode():
                yield self.merged(role)
        else:
            with torch.no_grad(), self._switched(role) as model:
                yield model

    def merged(self, role: Role) -> nn.Module:
        """A plain model with the role's adapters merged in, as of now. It is cached, so do not modify it."""
        if self.config.method == "full":
            plain: nn.Module = self.body(role).plain
            return plain
        units, version = self.units[role], self.version(role)
        known = self._merged.get(units)
        if known is not None and known[0] == version:
            return known[1]
        with torch.inference_mode(False):  # the copy is kept, also when this call comes from inference mode
            model = known[1] if known else self._copy(role)
            self._merge_into(model, role)
        self._merged[units] = (version, model)
        return model

    def snapshot(self, role: Role) -> nn.Module:
        """A merged copy that later updates do not change: for a KL anchor, to measure drift, or to save."""
        if not self.mergeable:
            why, cure = ("split over processes", "shard: false") if self.sharded else ("quantized", "quantize: none")
            raise ConfigError(f"a base that is {why} cannot be merged; set {cure}, or leave out kl and --merged")
        model: nn.Module = self._copy(role)
        if self.config.method == "lora":
            self._merge_into(model, role)
        return model

    def _copy(self, role: Role) -> Any:
        """A copy of the plain base. Only layers with adapters take new memory."""
        body = self.body(role)
        if self.config.method == "full":
            return copy.deepcopy(body.plain).requires_grad_(False)
        plain = dict(body.plain.named_parameters())
        adapted = tuple(plain[f"{name}.weight"] for name, _ in self._layers(role))
        return sharing(body.plain, adapted)

    def adapted(self, role: Role) -> int:
        """How many parameters of the base a merged copy has copies of; it shares the others."""
        return sum(layer.get_base_layer().weight.numel() for _, layer in self._layers(role))

    def _layers(self, role: Role) -> list[tuple[str, Any]]:
        """Names and layers of the body that have the role's adapters."""
        modules: Any = self.body(role).model.get_base_model().named_modules()
        return [(name, layer) for name, layer in modules if isinstance(layer, LoraLayer)]

    @torch.no_grad()
    def _merge_into(self, model: nn.Module, role: Role) -> None:
        into = dict(model.named_parameters())
        for name, layer in self._layers(role):
            weight: Tensor = layer.get_base_layer().weight
            for unit in self.units[role]:
                if unit in layer.lora_A:
                    weight = weight + layer.get_delta_weight(unit)
            into[f"{name}.weight"].copy_(weight)

    # -- state -------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Copies of all units' tensors, as ``{unit}.{name}``."""
        return {f"{name}.{key}": whole(p.detach()).clone() for name in self._body for key, p in self.unit(name).items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` returned. Raises ``CheckpointError`` where names or shapes differ."""
        for name in self._body:
            for key, parameter in self.unit(name).items():
                saved = state.get(f"{name}.{key}")
                if saved is None or saved.shape != parameter.shape:
                    have = "nothing" if saved is None else f"shape {tuple(saved.shape)}"
                    raise CheckpointError(
                        f"the checkpoint has {have} for {name}.{key}, expected shape {tuple(parameter.shape)}; "
                        f"it was made for other weights than {self.config.mode!r} at rank {self.config.lora.rank}"
                    )
                parameter.copy_(split_like(parameter, saved))


def _activate(model: Any, units: list[str]) -> None:
    """Make exactly these adapters active. PEFT changes ``requires_grad`` flags along with them; restore the flags."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    model.base_model.set_adapter(units)  # PeftModel.set_adapter takes one name only
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
