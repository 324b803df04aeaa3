"""Real architectures and real chat templates: token-exact, with sliding windows, and safe from forged turns."""

import pytest
import torch
from doubles import Letters, letters
from families import FAMILIES, OPENS_THE_THOUGHT, THINK, model, tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiplan.coordination import Limits
from hiplan.errors import ConfigError
from hiplan.executors import Executor
from hiplan.model import Decoding, Request, ScriptedModel
from hiplan.models.chat import ChatCodec
from hiplan.planners import Planner
from hiplan.sampler import Job, Sampler
from hiplan.task import StepResult
from hiplan.trace import ROLES, Conversation, Role
from hiplan.training.batch import Row, batches, token_logprobs

ASKED = ("You act in a world.", "make a door from 2 plank and 1 nail", "got 2 plank", "go to the kitchen", "done 1, 2")
NAMES = [name for name in FAMILIES if name != OPENS_THE_THOUGHT]


def converse(local, role: Role = "executor", turns: int = 4, seed: int = 0, tokens: int = 12) -> list[Conversation]:
    """Three conversations of different lengths, answered together."""
    conversations = [Conversation(role) for _ in range(3)]
    for i, conversation in enumerate(conversations):
        conversation.ask(ASKED[0] * (1 + i), 0, author="system")
    for turn in range(turns):
        for i, conversation in enumerate(conversations):
            conversation.ask(f"{ASKED[1 + turn % 4]} {'and wait ' * i}", turn)
        requests = [
            Request(c, Decoding(1.0, tokens, tokens), seed + 10 * turn + i) for i, c in enumerate(conversations)
        ]
        for conversation, done in zip(conversations, local.complete(requests), strict=True):
            conversation.answer(
                done.text, "action", turn, prompt_ids=done.prompt_ids, ids=done.ids, logprobs=done.logprobs,
                finish=done.finish, reasoning=done.reasoning, dropped=done.dropped,
            )  # fmt: skip
    return conversations


def gap(local, role: Role, conversations: list[Conversation]) -> float:
    """The largest difference between recorded log-probabilities and those of one forward pass."""
    rows = [row for c in conversations for row in Row.of(c)]
    worst = 0.0
    with torch.no_grad(), local.weights.acting_as(role) as active:
        for batch in batches(rows, 10_000, torch.device("cpu")):
            off = (token_logprobs(active, batch) - batch.logp_old)[batch.mask].abs()
            worst = max(worst, off.max().item())
    return worst


@pytest.mark.parametrize("name", NAMES)
def test_turns_are_appended_as_the_template_renders_them(name: str) -> None:
    words = tokenizer(name)
    codec = ChatCodec(words)
    said = ["get 2 log", "take apple"]
    messages = [{"role": "user", "content": ASKED[1]}]
    conversation = Conversation("executor")
    conversation.ask(ASKED[1], 0)
    for turn, text in enumerate(said):
        before = conversation.segments[-2] if turn else None
        prompt = codec.prompt(conversation.pending(), before)
        conversation.answer(text, "action", turn, prompt_ids=prompt, ids=(*codec.content(text), codec.end_id))
        conversation.ask(ASKED[2 + turn], turn + 1)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": ASKED[2 + turn]}]
    whole = conversation.ids() + codec.prompt(conversation.pending(), conversation.segments[-2])
    rendered = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert words.decode(whole, skip_special_tokens=False).replace("[/INST] ", "[/INST]") == rendered.replace(
        "[/INST] ", "[/INST]"
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_the_system_says_reaches_the_model(name: str) -> None:
    words = tokenizer(name)
    codec, conversation = ChatCodec(words), Conversation("planner")
    conversation.ask(ASKED[0], 0, author="system")
    conversation.ask(ASKED[1], 0)
    text = words.decode(codec.prompt(conversation.pending(), None), skip_special_tokens=False)
    messages = [{"role": "system", "content": ASKED[0]}, {"role": "user", "content": ASKED[1]}]
    if name in ("gemma", "gemma2"):  # their template knows no system turn
        messages = [{"role": "user", "content": f"{ASKED[0]}\n\n{ASKED[1]}"}]
    assert text == words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_sampling_with_a_kept_cache_is_exact(name: str) -> None:
    local = model(name)
    for role in ROLES:
        conversations = converse(local, role)
        assert gap(local, role, conversations) < 2e-4
        assert max(len(c.ids()) for c in conversations) > 60  # longer than the sliding windows
    assert local.usage.processed == local.usage.needed


def test_separate_models_of_different_families_work_together() -> None:
    local = model("llama3", "separate", executor="qwen3")
    for role in ROLES:
        assert gap(local, role, converse(local, role)) < 2e-4
    assert local.specs["planner"].tokenizer is not local.specs["executor"].tokenizer


PIECES = sorted({t for family in FAMILIES.values() for t in (*family.special, *family.added, *family.plain)})
UNTRUSTED = st.lists(st.sampled_from([*PIECES, "Action: win", "1. win", "\n", " "]) | st.text(max_size=4), max_size=8)


@pytest.mark.parametrize("name", list(FAMILIES))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(text=UNTRUSTED.map("".join))
def test_no_text_forges_a_turn(name: str, text: str) -> None:
    codec = codec_of(name)
    added = codec.tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.content not in FAMILIES[name].plain}
    asked = []
    for content in ("ok", text):
        conversation = Conversation("executor")
        conversation.ask("system", 0, author="system")
        conversation.ask(content, 0)
        asked.append([i for i in codec.prompt(conversation.pending(), None) if i in special])
    assert asked[0] == asked[1]
    plain = codec.tokenizer.decode(list(codec.content(text)), skip_special_tokens=False)
    assert plain == text.encode("utf-8", "replace").decode()


@given(text=UNTRUSTED.map("".join))
def test_no_observation_is_read_as_a_plan_or_an_action(text: str) -> None:
    class Forger(Letters):
        def step(self, action: str) -> StepResult:
            return StepResult(text, 0.0, terminated=False)

    wait = ScriptedModel(lambda c: "1. wait" if c.role == "planner" else "Action: wait")
    limits = Limits(turns=3, idle=9)
    (episode,) = Sampler(wait, Forger, limits=limits).run([Job(letters(3), Planner(), Executor())])
    assert [turn.action for turn in episode.turns] == ["wait"] * 3
    assert {step.description for record in episode.plans if record.plan for step in record.plan.steps} == {"wait"}


CODECS: dict[str, ChatCodec] = {}


def codec_of(name: str) -> ChatCodec:
    if name not in CODECS:
        CODECS[name] = ChatCodec(tokenizer(name))
    return CODECS[name]


def test_templates_that_cannot_be_derived_say_what_to_do() -> None:
    words = tokenizer("qwen2.5")
    real = words.chat_template
    try:
        for template, message in (
            ("{% for m in messages %}{{ loop.index }}{{ m.content }}<|im_end|>{% endfor %}", "different delimiters"),
            ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "no special token"),
            ("{% for m in messages[-1:] %}{{ m.content }}<|im_end|>{% endfor %}", "loses or reorders turns"),
            ("{{ raise_exception('never') }}", "failed on a plain conversation"),
        ):
            words.chat_template = template
            with pytest.raises(ConfigError, match=message):
                ChatCodec(words)
    finally:
        words.chat_template = real


def test_reasoning_is_read_apart_from_the_answer() -> None:
    codec = codec_of("qwen3")
    (start, stop), word = (codec.tokenizer.convert_tokens_to_ids(t) for t in THINK[:2]), codec.content
    said = codec.read([start, *word("\nmaybe 1. win\n"), stop, *word("\n\n1. get log"), codec.end_id])
    assert (said.text, said.reasoning) == ("1. get log", "maybe 1. win")
    assert codec.read([start, *word("1. win")]).text == ""  # cut while thinking
    assert (
        codec.read([*word("half"), stop, *word("go"), codec.end_id]).text == "go"
    )  # a template that opens the thought
    assert codec.read([*word("go </think> on"), codec.end_id]).text == "go </think> on"  # words, not the token


def test_added_tokens_that_are_ordinary_text_stay_text() -> None:
    codec = codec_of("gemma2")
    (blank,) = codec.content("\n\n")
    assert blank in codec.tokenizer.added_tokens_decoder
    assert codec.content("The task:\nmake")  # a one-character added token
    ids = [*codec.content("Need x"), blank, *codec.content("1. get log\n2. make plank"), codec.end_id]
    assert codec.read(ids).text == "Need x\n\n1. get log\n2. make plank"
    (bold,) = codec.tokenizer.encode("<b>", add_special_tokens=False)
    assert bold not in codec.content("a <b> c")


def test_where_the_template_opens_the_thought_a_cut_one_is_no_plan() -> None:
    codec = codec_of(OPENS_THE_THOUGHT)
    stop, word = codec.tokenizer.convert_tokens_to_ids("</think>"), codec.content
    assert codec.thinks_first and not codec_of("qwen3").thinks_first
    cut = codec.read(word("I might try\n1. win"))
    assert (cut.text, cut.reasoning) == ("", "I might try\n1. win")
    done = codec.read([*word("hm"), stop, *word("\n\n1. get log"), codec.end_id])
    assert (done.text, done.reasoning) == ("1. get log", "hm")
    local = model(OPENS_THE_THOUGHT)
    local.keep_reasoning = False
    with pytest.raises(ConfigError, match="writes the opening mark of the reasoning itself"):
        converse(local)


@pytest.mark.parametrize("keep", [True, False])
def test_dropped_reasoning_is_not_seen_again_and_still_learned_from(keep: bool) -> None:
    local = model("qwen3")
    local.keep_reasoning = keep
    tried = (converse(local, turns=4, seed=1000 * seed) for seed in range(50))
    conversations = next(found for found in tried if any(s.reasoning for c in found for s in c.segments[:-2]))
    thoughts = [s for c in conversations for s in c.segments if s.reasoning]
    assert all((s.dropped > 0) != keep for s in thoughts)
    assert gap(local, "executor", conversations) < 2e-4
    rows = [row for c in conversations for row in Row.of(c)]
    assert sum(map(sum, (row.trained for row in rows))) == sum(
        len(s.ids) for c in conversations for s in c.segments if s.author == "assistant"
    )
    assert (len(rows) > len(conversations)) != keep
