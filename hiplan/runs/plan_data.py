"""PilotRL's construction of given plans (arXiv 2508.00344): sample, judge, keep, and write the plan file of stage 1.

    for each task:  sample a batch of first plans -> judge them -> at least half pass ? keep the best : sample again

A task is given up if this fails in each of its batches. ``OUT`` gets one line per kept plan (``PlanFileLine``), and the
journal ``OUT.scores.jsonl`` gets all plans and scores (``plan_journal.py``). The journal is written first and flushed
to disk. So a killed run resumes after its last whole batch of tasks, and ends with the same bytes in both files.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hiplan.coordination import Judge, Limits, PlanScore, Submission, Unjudged, llm_judge, rules_judge
from hiplan.envs import make_env, shipped_panel, train_mix
from hiplan.envs.tasks import SIZES, EnvName
from hiplan.executors import OracleExecutor
from hiplan.formats import render_numbered
from hiplan.loading import load_model, stage_facts
from hiplan.model import Decoding, Model, ScriptedModel, derive_seed
from hiplan.models.api import ApiModel, Endpoint
from hiplan.planners import OraclePlanner
from hiplan.runs.plan_journal import Journal, Line, PlanSettings, Tried, journal_of
from hiplan.sampler import Job, Sampler
from hiplan.task import Task

DIMENSIONS = ("correctness", "followability", "standardisation")


class EndpointConfig(BaseModel):
    """An OpenAI-compatible endpoint.

    ``url``: such as ``http://localhost:8000/v1``. ``key_env``: the environment variable with the key. ``prices``: of a
    million prompt tokens and of a million completion tokens. ``concurrency``: requests at once. ``timeout``: seconds
    for one answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    model: str
    key_env: str | None = None
    prices: tuple[float, float] | None = None
    concurrency: int = Field(default=8, ge=1)
    timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)

    def connect(self, cache: Path) -> Endpoint:
        """The endpoint, which caches answers in ``cache``. Raises ``ConfigError``."""
        return Endpoint(
            self.url, self.model, self.key_env, self.concurrency, timeout=self.timeout, cache=cache, prices=self.prices
        )


class PlanDataConfig(BaseModel):
    """Settings of ``hiplan plans``.

    ``planner``: the endpoint that plans; ``None`` for the planner of ``stage``, or without a stage the untrained model.
    ``judge``: ``rules``, ``planner`` (the endpoint that plans) or an endpoint. ``reference``: show the judge how the
    environment's oracle solves the task. ``tasks``: how many tasks. ``tries``: plans per task in a batch, half of which
    must pass. ``rounds``: the most batches per task. ``batch``: tasks at once; a killed run repeats its last ones.
    ``tokens``: the most of one answer; default 512, or as the stage was trained. ``cache``: folder for the endpoints'
    answers; default next to the plan file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    planner: EndpointConfig | None = None
    stage: Path | None = None
    judge: Literal["rules", "planner"] | EndpointConfig = "rules"
    reference: bool = False
    env: EnvName = "mixed"
    seed: int = 0
    tasks: int = Field(default=200, ge=1)
    tries: int = Field(default=4, ge=1)
    rounds: int = Field(default=3, ge=1)
    batch: int = Field(default=16, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    cache: Path | None = None

    @model_validator(mode="after")
    def _possible(self) -> PlanDataConfig:
        if self.planner and self.stage:
            raise ValueError("planner and stage both choose what plans; give one of them")
        if self.judge == "planner" and not self.planner:
            raise ValueError("judge: planner needs an endpoint as planner; give its url and model, or use rules")
        return self


def plan_data(config: PlanDataConfig, out: Path, console: Console) -> None:
    """Make the plans, write the plan file, and print a summary."""
    cache = config.cache or out.with_name(f"{out.name}.cache")
    endpoint = config.planner.connect(cache) if config.planner else None
    judge_endpoint = endpoint if config.judge == "planner" else None
    if isinstance(config.judge, EndpointConfig):
        judge_endpoint = config.judge.connect(cache)
    model = ApiModel(endpoint) if endpoint else load_model(checkpoint=config.stage)
    name = f"{endpoint.model} at {endpoint.url}" if endpoint else str(config.stage or "tiny-v1")
    tokens = config.tokens or (512 if endpoint else tokens_as_trained(config.stage))
    judge, judge_name = rules_judge(make_env), "rules"
    if judge_endpoint:
        judge_name = f"{judge_endpoint.model} at {judge_endpoint.url}"
        judge = llm_judge(ApiModel(judge_endpoint), Decoding(temperature=0.0, plan_tokens=max(tokens, 512)))
    settings = PlanSettings(
        model=name, judge=judge_name, tokens=tokens,
        **{key: getattr(config, key) for key in ("env", "seed", "tries", "rounds", "batch", "reference")},
    )  # fmt: skip
    lines = make_plans(settings, model, judge, config.tasks, out, console)
    endpoints = list(dict.fromkeys(e for e in (endpoint, judge_endpoint) if e))  # can be the same
    console.print(summary(lines, settings.strict, endpoints), markup=False, highlight=False, soft_wrap=True)
    console.print(f"plans: {out}, scores: {journal_of(out)}", markup=False, highlight=False, soft_wrap=True)


def tokens_as_trained(checkpoint: Path | None) -> int:
    """The most tokens of a plan in the training run of the stage."""
    from hiplan.runs.measure import as_trained  # imports torch

    return as_trained(stage_facts(checkpoint) if checkpoint else {}).train.plan_tokens


def make_plans(
    settings: PlanSettings, model: Model, judge: Judge, count: int, out: Path, console: Console
) -> list[Line]:
    """All lines of the journal, once it has ``count`` tasks. Raises ``ConfigError`` for a journal of other settings."""
    journal = Journal(out, settings)
    columns = (TextColumn("plans"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(
        *columns, console=console, disable=hidden, speed_estimate_period=3600
    ) as progress:  # batches are slow
        bar = progress.add_task("plans", total=count, completed=min(count, len(journal.lines)))
        tasks = islice(training_tasks(settings.env, settings.seed), len(journal.lines), count)
        while batch := list(islice(tasks, settings.batch)):
            journal.append(plan_batch(batch, settings, model, judge))
            progress.advance(bar, len(batch))
    return journal.lines


def training_tasks(env: EnvName, seed: int) -> Iterator[Task]:
    """Distinct tasks of the training distribution, without those of the shipped panels."""
    seen = {task.id for e in get_args(EnvName) for name in SIZES for task in shipped_panel(name, e).tasks}
    draw, rng = train_mix(env), random.Random(derive_seed(seed, "plan data", env))
    while True:
        task = draw(rng)
        if task.id not in seen:
            seen.add(task.id)
            yield task


@dataclass
class _Search:
    """One task's batches so far."""

    task: Task
    reference: str = ""
    plans: list[Tried] = field(default_factory=list)
    kept: int | None = None


def plan_batch(tasks: Sequence[Task], settings: PlanSettings, model: Model, judge: Judge) -> list[Line]:
    """Sample and judge plans for these tasks together, each until half of a batch pass or its rounds are used up."""
    known = trajectories(tasks) if settings.reference else [""] * len(tasks)
    searches = [_Search(task, reference) for task, reference in zip(tasks, known, strict=True)]
    for round in range(settings.rounds):
        wanted = [search for search in searches if search.kept is None]
        for search, batch in zip(wanted, judged_plans(wanted, round, settings, model, judge), strict=True):
            passed = [i for i, tried in enumerate(batch, len(search.plans)) if tried.passes]
            search.plans += batch
            if 2 * len(passed) >= settings.tries:
                search.kept = max(passed, key=lambda i: search.plans[i].scores.mean)  # type: ignore[union-attr]
    last = len(searches) - 1
    return [Line(task=s.task, kept=s.kept, plans=tuple(s.plans), left=last - i) for i, s in enumerate(searches)]


def judged_plans(
    searches: Sequence[_Search], round: int, settings: PlanSettings, model: Model, judge: Judge
) -> list[list[Tried]]:
    """One batch of first plans per task, judged."""
    decoding = Decoding(temperature=1.0, plan_tokens=settings.tokens)
    sampler, n = Sampler(model, make_env, decoding, limits=Limits(turns=0)), settings.tries
    jobs = [
        Job(s.task, sampler.planner, sampler.executor, derive_seed(settings.seed, "plan data", s.task.id, round, k))
        for s in searches
        for k in range(n)
    ]
    episodes = sampler.run(jobs)
    references = [s.reference for s in searches for _ in range(n)]
    scores = judge([Submission(e.task, e.observation, e.plan, r) for e, r in zip(episodes, references, strict=True)])
    tried = [
        Tried(
            round=round,
            plan=render_numbered(episode.plan) if episode.plan else "",
            passes=isinstance(score, PlanScore) and (score.perfect if settings.strict else score.passes),
            scores=None if isinstance(score, Unjudged) else score,
            why=score.why if isinstance(score, Unjudged) else "",
        )
        for episode, score in zip(episodes, scores, strict=True)
    ]
    return [tried[i : i + n] for i in range(0, len(tried), n)]


def trajectories(tasks: Sequence[Task]) -> list[str]:
    """How the environment's oracle solves each task."""
    jobs = [Job(task, OraclePlanner(), OracleExecutor()) for task in tasks]
    episodes = Sampler(ScriptedModel([]), make_env, limits=Limits(turns=200)).run(jobs)
    return ["\n".join(f"> {turn.action}\n{turn.observation}" for turn in e.turns) for e in episodes]


def summary(lines: Sequence[Line], strict: bool, endpoints: Sequence[Endpoint]) -> str:
    """Counts of tasks, plans and rejections, and the usage of each endpoint."""
    plans = [tried for line in lines for tried in line.plans]
    kept = sum(line.kept is not None for line in lines)
    bars = (5, 5, 5) if strict else (4, 5, 5)
    low: Counter[str] = Counter()
    for tried in plans:
        if not tried.plan:
            low["could not be read"] += 1
        elif tried.scores is None:
            low["could not be judged"] += 1
        else:
            low.update(d for d, bar in zip(DIMENSIONS, bars, strict=True) if getattr(tried.scores, d) < bar)
    why = ", ".join(f"{name} {low[name]}" for name in (*DIMENSIONS, "could not be read", "could not be judged"))
    texts = [
        f"tasks: {len(lines)}, with a plan {kept}, given up {len(lines) - kept}",
        f"plans: {len(plans)} sampled, {sum(tried.passes for tried in plans)} passed, {kept} kept",
        f"rejected for (a plan may fail in several): {why}",
    ]
    for endpoint in endpoints:
        u, cost = endpoint.usage, "" if endpoint.cost is None else f", cost {endpoint.cost:.4f}"
        texts.append(
            f"{endpoint.model} at {endpoint.url}, this time: {u.requests} requests, {u.cached} answers from the cache, "
            f"{u.prompt_tokens} prompt and {u.completion_tokens} completion tokens{cost}"
        )
    return "\n".join(texts)
