"""Which weights each role has: joint, split, partial or separate, behind one interface.

A *unit* is a set of weights that is trained, frozen and saved as one: a LoRA adapter, or with ``full`` a whole model. A
role is made of one unit, or of two that add up (``partial``), on its *body*, a base model. Everything else in
hiplan is the same code for every mode. Roles are routed through ``acting_as`` alone, which restores the
active adapters and every ``requires_grad`` flag, because a rollout that leaves the wrong adapter active
makes training a silent no-op; ``guarded`` raises where that or its like has happened.

For rollouts ``merged`` gives a plain copy of the base with the role's adapters added in: about 1.4 times
as fast to decode as adapters beside their base. The trained weights themselves are never touched.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hiplan.errors import CheckpointError, ConfigError, InternalError
from hiplan.files import read_object
from hiplan.models.settings import UNITS, WeightsConfig
from hiplan.models.shards import here, shard, split_like, whole
from hiplan.trace import Role

PLAIN_LORA: dict[str, Any] = {  # what hiplan's adapters are; anything else would be read wrongly
    "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none",
    "lora_bias": False, "modules_to_save": None, "fan_in_fan_out": False,
}  # fmt: skip


class Body:
    """A base model, wrapped by PEFT where it carries adapters. ``plain``: its structure without them.

    ``plain`` shares its tensors with the base, so it costs no memory.
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
        self.frozen = {names[id(p)]: p for p in self.model.parameters() if lora and not _is_lora(names[id(p)])}

    def _check_layers(self) -> None:
        """Raises ``ConfigError`` for adapters on anything but linear layers with weights of their own."""
        plain = dict(self.plain.named_parameters())
        for name, layer in self.model.get_base_model().named_modules():
            odd = isinstance(layer, LoraLayer) and (len(layer.lora_embedding_A) or isinstance(layer, ParamWrapper))
            if odd or (isinstance(layer, LoraLayer) and f"{name}.weight" not in plain):
                raise ConfigError(
                    f"weights.lora.targets would adapt {name!r}, which is no linear layer with weights of its own; "
                    "name the layers to adapt, such as [q_proj, k_proj, v_proj, o_proj]"
                )

    @property
    def config(self) -> Any:
        return self.plain.config


def _is_lora(name: str) -> bool:
    return ".lora_" in name


def sharing(module: Any, copied: tuple[Tensor, ...] = ()) -> Any:
    """A copy of a module that shares all tensors with it but those in ``copied``."""
    fresh = {id(t) for t in copied}
    kept = [t for t in (*module.parameters(), *module.buffers()) if id(t) not in fresh]
    return copy.deepcopy(module, {id(t): t for t in kept})


class RoleWeights:
    """The weights of both roles.

    ``base`` is taken over: its linear layers are wrapped. ``executor_base``: the executor's own with ``separate``
    weights, else a copy of ``base``. ``seed`` fixes the adapters' start.
    """

    def __init__(
        self, base: Any, config: WeightsConfig | None = None, seed: int = 0, executor_base: Any = None
    ) -> None:
        self.config = config or WeightsConfig()
        self.units: dict[Role, tuple[str, ...]] = UNITS[self.config.mode]
        self._twins: dict[tuple[str, ...], tuple[tuple[int, ...], nn.Module]] = {}
        self._acted: Counter[str] = Counter()
        self.sharded = False
        lora = self._lora_config() if self.config.method == "lora" else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.config.mode == "separate":
                other = copy.deepcopy(base) if executor_base is None else executor_base
                self.bodies = [Body(base, ("planner",), lora), Body(other, ("executor",), lora)]
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
            body.plain.to(device)  # its parameters have moved with the model's, its buffers are its own
        self._twins.clear()

    def shard(self, device: torch.device) -> None:
        """Split all weights over the processes (FSDP2). From then on they must use them together, in the same order."""
        for body in self.bodies:
            shard(body.model, device)
            body.plain = body.model.get_base_model() if self.config.method == "lora" else body.model
        self.sharded = True

    @property
    def mergeable(self) -> bool:
        """Whether whole copies with adapters merged in can be made: not of a base in four bits, nor of a split one."""
        return self.config.quantize == "none" and not self.sharded

    def body(self, role: Role) -> Body:
        """The base model the role's units are on."""
        return self._body[self.units[role][0]]

    # -- parameters --------------------------------------------------------------------------

    def unit(self, name: str) -> dict[str, nn.Parameter]:
        """A unit's parameters by name, the adapter's own name taken out (the same names for every adapter)."""
        model = self._body[name].model
        if self.config.method == "full":
            return dict(model.named_parameters())
        mark = f".{name}."
        return {key.replace(mark, "."): p for key, p in model.named_parameters() if _is_lora(key) and mark in key}

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """All parameters of the role's units: ``{unit}.{name}``."""
        return {f"{unit}.{key}": p for unit in self.units[role] for key, p in self.unit(unit).items()}

    def train_only(self, roles: tuple[Role, ...]) -> None:
        """Let exactly the units of these roles receive gradients (see ``WeightsConfig.shared``)."""
        for body in self.bodies:
            body.model.requires_grad_(False)
        for name in self.config.trained(roles):
            for parameter in self.unit(name).values():
                parameter.requires_grad_(True)

    @contextmanager
    def acting_as(self, role: Role) -> Iterator[Any]:
        """The model with the role's adapters active; what was active before is restored."""
        try:
            with self._switched(role) as model:
                yield model
        finally:
            self._acted.update(self.units[role])

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
        """Around one optimizer step: raises ``InternalError`` naming what did not learn though it should, or moved.

        Every parameter of the units ``learning`` must have a finite gradient and, where that is not zero throughout,
        must move; no other parameter may.
        """
        meant = {f"{unit}.{key}": p for unit in learning for key, p in self.unit(unit).items()}
        others = {f"{u}.{key}": p for u in self._body if u not in learning for key, p in self.unit(u).items()}
        lost = [name for name, p in meant.items() if p.grad is None or not bool(torch.isfinite(here(p.grad)).all())]
        if lost:
            raise InternalError(f"no finite gradient reached {_named(lost)}; was another adapter left active?")
        before = {name: here(p.detach()).clone() for name, p in (meant | others).items()}
        pulled = {name for name, p in meant.items() if p.grad is not None and bool(here(p.grad).any())}
        frozen = [(name, p, p._version) for body in self.bodies for name, p in body.frozen.items()]
        yield
        stuck = [name for name in sorted(pulled) if torch.equal(here(meant[name]), before[name])]
        moved = [n for n, p in others.items() if not torch.equal(here(p), before[n])]
        moved += [n for n, p, version in frozen if p._version != version or p.grad is not None]
        if stuck:
            raise InternalError(f"the update did not move {_named(stuck)}; does the optimizer hold these parameters?")
        if moved:
            raise InternalError(f"the update of {', '.join(learning)} moved {_named(moved)}, which should be frozen")

    def version(self, role: Role) -> tuple[int, ...]:
        """Changes whenever the role's parameters do, and after ``acting_as``.

        Torch counts writes in place, but not those of fused optimizers: whoever acted as the role may have trained it.
        """
        acted = (self._acted[unit] for unit in self.units[role])
        return (*acted, *(p._version for p in self.parameters(role).values()))

    # -- rollouts ----------------------------------------------------------------------------

    @contextmanager
    def sampling(self, role: Role) -> Iterator[Any]:
        """The fastest model that answers as the role does, without gradients: a merged copy if there can be one."""
        if self.mergeable:
            with torch.inference_mode():
                yield self.merged(role)
        else:
            with torch.no_grad(), self._switched(role) as model:
                yield model

    def merged(self, role: Role) -> nn.Module:
        """A plain model with the role's adapters merged in, kept up to date. Do not write to it."""
        if self.config.method == "full":
            whole: nn.Module = self.body(role).plain
            return whole
        units, version = self.units[role], self.version(role)
        known = self._twins.get(units)
        if known is not None and known[0] == version:
            return known[1]
        with torch.inference_mode(False):  # the copy outlives the call it is made in
            twin = known[1] if known else self._copy(role)
            self._merge_into(twin, role)
        self._twins[units] = (version, twin)
        return twin

    def snapshot(self, role: Role) -> nn.Module:
        """A merged copy as the role is now, for a KL anchor, to measure drift, or to save."""
        if not self.mergeable:
            which, cure = ("split", "shard: false") if self.sharded else ("in four bits", "quantize: none")
            raise ConfigError(f"a base that is {which} cannot be merged; do without kl and export, or use {cure}")
        twin: nn.Module = self._copy(role)
        if self.config.method == "lora":
            self._merge_into(twin, role)
        return twin

    def _copy(self, role: Role) -> Any:
        """A copy of the plain base, of which only the layers with adapters take new memory."""
        body = self.body(role)
        if self.config.method == "full":
            return copy.deepcopy(body.plain).requires_grad_(False)
        plain = dict(body.plain.named_parameters())
        own = tuple(plain[f"{name}.weight"] for name, _ in self._layers(role))
        return sharing(body.plain, own)

    def adapted(self, role: Role) -> int:
        """How many of the base's parameters a merged copy holds anew."""
        return sum(layer.get_base_layer().weight.numel() for _, layer in self._layers(role))

    def _layers(self, role: Role) -> list[tuple[str, Any]]:
        """Names and layers of the body that carry the role's adapters."""
        modules: Any = self.body(role).model.get_base_model().named_modules()
        return [(name, layer) for name, layer in modules if isinstance(layer, LoraLayer)]

    @torch.no_grad()
    def _merge_into(self, twin: nn.Module, role: Role) -> None:
        into = dict(twin.named_parameters())
        for name, layer in self._layers(role):
            weight: Tensor = layer.get_base_layer().weight
            for unit in self.units[role]:
                if unit in layer.lora_A:
                    weight = weight + layer.get_delta_weight(unit)
            into[f"{name}.weight"].copy_(weight)

    # -- on disk -----------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All units' tensors, copied: ``{unit}.{parameter}``."""
        return {f"{name}.{key}": whole(p.detach()).clone() for name in self._body for key, p in self.unit(name).items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave. Raises ``CheckpointError`` where names or shapes differ."""
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

    def save(self, folder: Path, write: bool = True) -> None:
        """Write every unit to ``folder/{unit}/``: adapters in PEFT's format, whole models in transformers'.

        ``write``: false in all but one of several processes, which take part where weights are split.
        """
        full = self.config.method == "full"
        for body in self.bodies:
            state = None
            if self.sharded:
                state = {name: whole(p) for name, p in body.model.named_parameters() if full or _is_lora(name)}
            if write and full:
                body.model.save_pretrained(str(folder / body.units[0]), state_dict=state)
            elif write:
                body.model.save_pretrained(str(folder), selected_adapters=list(body.units), state_dict=state)
                for unit in body.units:
                    _sort_targets(folder / unit / "adapter_config.json")

    def load(self, folder: Path) -> None:
        """Read units that ``save`` wrote. Raises ``CheckpointError`` where one is missing or of another shape."""
        for name in self._body:
            self.load_unit(name, folder / name)

    @torch.no_grad()
    def load_unit(self, name: str, folder: Path) -> None:
        """Read one unit from a folder in PEFT's format (with ``full``: transformers'), whoever wrote it."""
        path = folder / ("model.safetensors" if self.config.method == "full" else "adapter_model.safetensors")
        if not path.is_file():
            raise CheckpointError(f"no weights at {path}; expected a checkpoint made with weights {self.config.mode!r}")
        if self.config.method == "lora" and (about := folder / "adapter_config.json").is_file():
            facts = read_object(about, "adapter's config", CheckpointError)
            expected = PLAIN_LORA | {"lora_alpha": self.config.lora.alpha}
            if odd := next((key for key, plain in expected.items() if (facts.get(key) or plain) != plain), None):
                raise CheckpointError(f"{about} has {odd} {facts[odd]!r}, expected {expected[odd]!r}")
        saved = {key.removeprefix("base_model.model."): value for key, value in read_tensors(path).items()}
        mine = {key.removeprefix("base_model.model."): parameter for key, parameter in self.unit(name).items()}
        if self.config.method == "lora" and (more := sorted(set(saved) - set(mine))):
            raise CheckpointError(f"{path} holds {more[0]}, for which these weights have no place")
        for short, parameter in mine.items():
            if short not in saved or saved[short].shape != parameter.shape:
                raise CheckpointError(f"{path} lacks {short} of shape {tuple(parameter.shape)}")
            parameter.copy_(split_like(parameter, saved[short]))

    def export(self, role: Role, folder: Path) -> None:
        """Write the role as one thing that needs no hiplan: a PEFT adapter, or with ``full`` a model.

        A partial role's two adapters become one of twice the rank, whose product is their sum.
        """
        units = self.units[role]
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder / ".all")
        first = folder / ".all" / units[0]
        for file in first.iterdir():
            shutil.copyfile(file, folder / file.name)
        if len(units) > 1:
            parts = [read_tensors(folder / ".all" / unit / "adapter_model.safetensors") for unit in units]
            joined = {k: torch.cat([part[k] for part in parts], 0 if ".lora_A." in k else 1) for k in parts[0]}
            save_tensors(joined, folder / "adapter_model.safetensors", {"format": "pt"})
            config = json.loads((folder / "adapter_config.json").read_text())
            config |= {"r": config["r"] * len(units), "lora_alpha": config["lora_alpha"] * len(units)}
            (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        shutil.rmtree(folder / ".all")


def _activate(model: Any, units: list[str]) -> None:
    """Make exactly these adapters active; PEFT turns ``requires_grad`` on and off with them, so that is put back."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    model.base_model.set_adapter(units)  # the PeftModel's own method takes one name only
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def _sort_targets(path: Path) -> None:
    """PEFT writes the set of target modules in an order that changes from process to process."""
    known = json.loads(path.read_text())
    if isinstance(known["target_modules"], list):
        path.write_text(json.dumps(known | {"target_modules": sorted(known["target_modules"])}, indent=2) + "\n")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file. Raises ``CheckpointError`` for one that is broken."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, contiguous and in a fixed order, so equal tensors give equal bytes."""
    save_file({key: tensors[key].contiguous() for key in sorted(tensors)}, path, metadata=metadata)
