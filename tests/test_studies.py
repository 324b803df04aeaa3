"""Studies and what leaves a run: hand-computed tables, kept cells, exported roles and converted checkpoints."""

import json
from pathlib import Path

import pytest
import study_runs
import torch
import yaml
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file, save_file
from study_cells import summary
from study_runs import doubled, sometimes
from test_modes import logits
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments import ablate
from experiments.ablate import Ablation
from experiments.studies import STUDIES, Arm, Study
from hiplan.coordination import Limits
from hiplan.coordination.matching import best_known
from hiplan.coordination.replan import REPLAN_POLICIES
from hiplan.errors import CheckpointError, ConfigError
from hiplan.loading import load_agent, load_model, stage_facts
from hiplan.model import Decoding
from hiplan.models.bases import find_model
from hiplan.models.local import LocalModel
from hiplan.models.settings import WeightsConfig
from hiplan.models.stages import load_stage, save_stage
from hiplan.runs.cells import Cell as DoneCell
from hiplan.runs.cells import run_cells
from hiplan.runs.dry_run import memory_table
from hiplan.runs.export import convert_stage, export_role
from hiplan.runs.measure import as_trained
from hiplan.runs.settings import RunConfig, resolve

TWO = Study("two", {"a": Arm("first"), "b": Arm("second")}, rates=(1.0, 2.0), stages=("joint",))


def test_the_learning_rate_is_chosen_on_dev_and_the_smaller_of_equals_wins() -> None:
    tried = [
        summary("a", 100, {"dev": dev, "train": train}, rate)
        for rate, dev, train in ((2.0, "1100", "0000"), (0.5, "1000", "1111"), (1.0, "0011", "1111"))
    ]
    assert ablate.best_rate(tried) == 1.0
    assert ablate.best_rate([]) == 1.0


def ablation(study: Study, kept: Path, runs: Path, *extra: str) -> Ablation:
    return Ablation(study, kept, runs, 1, extra, Console(quiet=True), study_runs.play)


def test_finished_cells_are_kept_and_other_settings_refused(tmp_path: Path) -> None:
    study, kept, runs = Study("one", {"a": Arm("first")}, rates=(1.0, 2.0)), tmp_path / "kept", tmp_path / "runs"
    cells, chosen = ablation(study, kept, runs, "panel_tasks=2").all([0])
    assert chosen == {"a": 1.0} and len(cells) == 3
    assert [line.split()[0] for line in study_runs.launched(runs)] == ["a-0", "a-100", "a-x2-100"]
    assert ablation(study, kept, runs, "panel_tasks=2").all([0]) == (cells, chosen) and not study_runs.launched(runs)
    with pytest.raises(ConfigError, match=r"kept/.*was made with other settings"):
        ablation(study, kept, runs, "panel_tasks=4").all([0])


def test_a_run_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    known = ablation(TWO, tmp_path / "kept", tmp_path / "runs").cell(ablate.Run("a", 0), {})
    folder = Path(known.arguments["folder"])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(RunConfig(seed=7).model_dump(mode="json")))
    with pytest.raises(ConfigError, match=r"runs/.*was made with other settings"):
        ablate.play(**known.arguments)


def test_a_failed_cell_ends_the_study_and_finished_ones_are_kept(tmp_path: Path) -> None:
    study = Study("one", {"a": Arm("first")})
    with pytest.raises(RuntimeError, match="a failed"):
        ablation(study, tmp_path / "kept", tmp_path / "runs").all([0, 13, 1, 2, 3])
    assert (tmp_path / "kept" / "a-0.json").is_file() and not (tmp_path / "kept" / "a-3.json").exists()


def test_a_matched_arm_takes_its_steps_from_the_summary(tmp_path: Path) -> None:
    study = Study("matched", {"a": Arm("first"), "b": Arm("second", match="a")})
    ablation(study, tmp_path / "kept", tmp_path / "runs").all([0])
    assert study_runs.launched(tmp_path / "runs") == ["a-0 None", "b-0 7"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_of_every_study_has_valid_settings(name: str, tmp_path: Path) -> None:
    known = ablation(STUDIES[name], tmp_path, tmp_path)
    seen = {arm: known.settings(ablate.Run(arm, 3, 2.0)) for arm in STUDIES[name].arms}
    rates = {arm: [stage.learning_rate for stage in s.train.stages] for arm, s in seen.items()}
    once = {arm: [stage.learning_rate for stage in known.settings(ablate.Run(arm, 3)).train.stages] for arm in seen}
    assert all(rates[arm] == [2 * rate for rate in once[arm]] for arm in seen)
    assert {s.seed for s in seen.values()} == {3}
    if name == "weights":
        assert {s.weights.mode for s in seen.values()} == {"joint", "split", "partial", "separate"}


# -- what leaves a run -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder of partial weights whose adapters do something."""
    folder = tmp_path_factory.mktemp("run") / "stages" / "joint"
    model = LocalModel.load("tiny-v1", WeightsConfig(mode="partial"))
    torch.manual_seed(0)
    model.weights.load_state(
        {key: value + 0.02 * torch.randn(value.shape) for key, value in model.weights.state().items()}
    )
    save_stage(model, folder, {"env": "mixed"})
    return folder


def test_an_exported_role_needs_no_hiplan(stage: Path, tmp_path: Path) -> None:
    expected = logits(load_stage(stage).weights.merged("planner"))
    export_role(stage, "planner", tmp_path / "adapter", merged=False)
    base = AutoModelForCausalLM.from_pretrained(find_model("tiny-v1"))
    untouched = logits(base)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(base, str(tmp_path / "adapter"))), expected, rtol=0, atol=1e-4
    )
    loaded = load_model(planner=tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded.weights.merged("planner")), expected, rtol=0, atol=1e-4)
    assert torch.equal(logits(loaded.weights.merged("executor")), untouched)
    export_role(stage, "planner", tmp_path / "whole", merged=True)
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole")), expected, rtol=0, atol=1e-5
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "whole").chat_template
    with pytest.raises(ConfigError, match="already contains files"):
        export_role(stage, "planner", tmp_path / "whole", merged=True)
    with pytest.raises(CheckpointError, match="is no LoRA adapter in PEFT's format"):
        load_model(executor=tmp_path / "whole")
    with pytest.raises(ConfigError, match="unknown role 'judge'"):
        export_role(stage, "judge", tmp_path / "x", merged=False)


def test_what_is_no_plain_adapter_is_refused(stage: Path, tmp_path: Path) -> None:
    """Each of these would load without a word and answer otherwise than in PEFT."""
    export_role(stage, "planner", tmp_path / "adapter", merged=False)
    file, about = tmp_path / "adapter/adapter_model.safetensors", tmp_path / "adapter/adapter_config.json"
    facts = json.loads(about.read_text())
    for change, message in (
        ({"use_rslora": True}, "use_rslora True"),
        ({"use_dora": True}, "use_dora True"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"bias": "all"}, "bias 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ):
        about.write_text(json.dumps(facts | change))
        with pytest.raises(CheckpointError, match=message):
            load_model(planner=tmp_path / "adapter")
    about.write_text(json.dumps(facts))
    whole = file.read_bytes()
    save_file(load_file(file) | {"base_model.model.lm_head.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"has the parameter 'lm_head\.weight', but the 'planner' adapter"):
        load_model(planner=tmp_path / "adapter")
    file.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(planner=tmp_path / "adapter")
    with pytest.raises(ConfigError, match="give it alone"):
        load_model(checkpoint=stage, planner=tmp_path / "adapter")


def test_a_stage_is_loaded_as_it_was(tmp_path: Path) -> None:
    model = LocalModel.load("tiny-v1", window=100, dtype="bfloat16", keep_reasoning=False)
    about = {"eval_turns": 7, "decoding": vars(Decoding(1.0, 5, 6)), "revise": "every_turn"}
    save_stage(model, tmp_path / "stage", about)
    again = load_model(checkpoint=tmp_path / "stage")
    assert (again.specs["planner"].window, again.keep_reasoning) == (100, False)
    assert again.weights.bodies[0].plain.dtype == torch.bfloat16
    config = as_trained(stage_facts(tmp_path / "stage"), env="crafting", panel_seed=None)
    assert (config.eval_turns, config.train.plan_tokens, config.train.action_tokens) == (7, 5, 6)
    assert (config.env, as_trained({}).eval_turns) == ("crafting", 30)
    assert (config.train.replan, as_trained({}).train.replan) == ("every_turn", "on_failure")
    agent = load_agent(tmp_path / "stage")
    assert (agent.limits, agent.decoding) == (Limits(turns=7), Decoding(0.0, 5, 6))
    assert (agent.replan, agent.matcher) == (REPLAN_POLICIES["every_turn"], best_known)
    assert agent.model.prompts.name == "brief"
    with pytest.raises(CheckpointError, match="is not a stage checkpoint"):
        load_agent(tmp_path)
    save_stage(model, tmp_path / "odd", about | {"matcher": None})
    with pytest.raises(
        ConfigError, match="trained with a matcher function that has no name; pass the function as matcher="
    ):
        load_agent(tmp_path / "odd")


def test_a_converted_stage_answers_as_before(stage: Path, tmp_path: Path) -> None:
    convert_stage(stage, "split", tmp_path / "split", None)
    before, after = load_stage(stage), load_stage(tmp_path / "split")
    assert after.weights.config.mode == "split" and after.weights.config.lora.rank == 32
    for role in ("planner", "executor"):
        torch.testing.assert_close(
            logits(after.weights.merged(role)), logits(before.weights.merged(role)), rtol=0, atol=1e-4
        )
    with pytest.raises(ConfigError, match="unknown weight mode 'shared'"):
        convert_stage(stage, "shared", tmp_path / "x", None)


def dry(*given: str) -> dict[str, str]:
    table = memory_table(resolve(Path(ablate.HERE) / "configs/llama-3.1-8b.yaml", list(given)))
    return dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))  # type: ignore[arg-type]


def test_a_dry_run_adds_up_what_a_large_model_would_take() -> None:
    """It is built on the meta device: 32 GiB would not fit here."""
    cells = dry()
    assert cells["base weights"] == "14.96 GiB"  # 8,030,261,248 parameters of two bytes
    assert cells["of which trained"].startswith("83,886,080")  # twice PEFT's own figure for rank 16 on all layers
    parts = [float(v.removesuffix(" GiB")) for k, v in cells.items() if v.endswith("GiB") and k != "total, estimated"]
    assert float(cells["total, estimated"].removesuffix(" GiB")) == pytest.approx(sum(parts), abs=0.05)
    start = "copies of a stage's first weights, for kl and drift"
    assert start not in cells and start in dry("train.stages.joint.kl=0.1") and start in dry("weights.mode=joint")
    full = dry("weights.mode=joint", "weights.method=full")
    assert (full["base weights"], full["gradients and Adam's moments"]) == ("29.92 GiB", "89.75 GiB")  # float32
    (few,), (many,) = (
        [v for k, v in dry(f"train.groups={n}").items() if k.startswith("executor's key-value")] for n in (2, 40)
    )
    assert float(few.split()[0]) == pytest.approx(64 / 320 * float(many.split()[0]), rel=0.01), (
        "64 are measured at once"
    )
    plans = [
        next(k for k in dry(f"train.replan={word}", "eval_turns=20", "train.turns=12") if k.startswith("planner's"))
        for word in ("never", "on_failure", "every_turn")
    ]
    assert [int(k.split(" of ")[1].split()[0].replace(",", "")) for k in plans] == [
        *(512 + n * (512 + 128) for n in (1, 9)),
        8192,  # the window; 20 would not fit
    ]
    with pytest.raises(ConfigError, match="no model at 'models/Unknown-1B'"):
        memory_table(resolve(None, ["model=models/Unknown-1B"]))


# -- cells -------------------------------------------------------------------------------------


def test_cells_are_kept_and_not_made_twice(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    cells = [DoneCell(tmp_path / f"{n}.json", doubled, {"n": n}, {"number": n}) for n in (1, 2)]
    assert [found["twice"] for found in run_cells(cells, 0, quiet)] == [2, 4], "in this process"
    for cell in cells:
        cell.file.unlink()
    assert [found["twice"] for found in run_cells(cells, 2, quiet)] == [2, 4]
    kept = json.loads((tmp_path / "1.json").read_text())
    (tmp_path / "1.json").write_text(json.dumps(kept | {"twice": 7}))
    (tmp_path / "2.json").unlink()
    assert [found["twice"] for found in run_cells(cells, 2, quiet)] == [7, 4], "the first was kept as it was"
    other = DoneCell(cells[0].file, doubled, {"n": 1}, {"number": 3})
    with pytest.raises(ConfigError, match="made with other settings"):
        run_cells([other], 1, quiet)
    cells[1].file.write_text("{")
    with pytest.raises(ConfigError, match=r"the cell .* does not parse: .*; remove it"):
        run_cells(cells, 1, quiet)
    with pytest.raises(ConfigError, match="two cells would be stored in"):
        run_cells([cells[0], cells[0]], 1, quiet)


def test_what_has_begun_is_kept_when_another_cell_fails(tmp_path: Path) -> None:
    cells = [
        DoneCell(tmp_path / f"{n}.json", sometimes, {"n": n, "folder": str(tmp_path)}, {"number": n}) for n in (5, 0)
    ]
    with pytest.raises(ValueError, match="no answer"):
        run_cells(cells, 2, Console(quiet=True))
    assert json.loads((tmp_path / "5.json").read_text())["twice"] == 10
