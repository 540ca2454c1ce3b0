"""What transformers makes of a conversation in a cell, and what uspx therefore has to make of it.

The rule. `prompt` is what generation is given: apply_chat_template(add_generation_prompt=True). A sequence with an
answer begins with exactly these ids; then comes what the template writes to open the answer (it counts as prompt), then
the answer's ids, the token that ends the turn included and last. What a template writes after that token does not
count. `joint` is the whole text's encoding, apply_chat_template of the conversation with its answer, up to that token.

A row's kind says what is asked for:

equal      The ids are `joint`, and the answer begins where the encoding of the text before it ends. A lone space marker
           that the tokenizer puts there, and that spells none of the answer, may count to either side.
seam       The joint encoding merges across the end of the prompt or the beginning of the answer (LF and LF to one
           token; a blank that opens the answer and its first word). Then the ids are `joint`, where it does begin with
           `prompt` and the merged token counts as answer, or the parts are encoded apart and the answer's ids decode to
           its text.
rewritten  The template writes the conversation anew once the answer is there, so that the joint rendering does not
           begin with the generation prompt (Mistral v0.3 leaves the system message out), or takes the answer apart
           (Qwen3 moves the text before `</think>` into its think block, R1 drops it). The prompt stays what generation
           is given. The rest is `joint`, here the encoding of what the template writes after the prompt, or ids that
           decode to the answer as it was given; or a refusal.
refused    The template refuses the conversation (raise_exception): so does uspx, and says why.

Where the template changes the answer (`trim`), its text is what is rendered. The end of an answer is found by its text,
since an answer may hold the marker that ends it.

Reasoning. Qwen3's published template ends its generation prompt at `<|im_start|>assistant LF`, and writes an empty
think block before an answer that comes last: the block opens the answer. The distilled R1's ends it at `<think> LF`,
and joint renderings drop the thought with its tags, so that no joint rendering begins with a generation prompt. There
an answer that is given closes the thought empty: `prompt`, then LF `</think>` LF LF (`Template.closing`), then the
answer; `joint` is the encoding of what follows the prompt, as it continues the prompt (`continued`).
"""

from dataclasses import dataclass
from datetime import datetime

from cells import Template
from families import MARK
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

# Rendered in the answer's place to see what stands around it; no template trims, splits or refuses it.
SENTINEL = "THE-ANSWER-STANDS-HERE"


class _FixedDay(datetime):
    """Today, to every template: a golden must be the same tomorrow. It is the day that uspx tells templates."""

    @classmethod
    def now(cls, tz=None):
        return cls(2025, 8, 5, tzinfo=tz)


chat_template_utils.datetime = _FixedDay


@dataclass(frozen=True)
class Parts:
    """A conversation's rendered text: `opened` is all before the answer, `end` the text of the token that ends it."""

    generation: str
    opened: str
    answer: str
    end: str
    # What the answer's ids decode to: the rendered answer, or the given one where the template takes it apart.
    spelled: str
    rewritten: bool = False


class Cell:
    """A model folder, as a user of transformers opens it."""

    def __init__(self, folder: str, template: Template):
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.template = template

    def render(self, turns: list, generate: bool) -> str:
        """The template's text."""
        return self.tokenizer.apply_chat_template(turns, add_generation_prompt=generate, tokenize=False)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which control tokens count as such, as apply_chat_template encodes it."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt(self, turns: list) -> list[int]:
        """What generation is given."""
        return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)["input_ids"]

    def parts(self, turns: list, answer: str) -> Parts:
        """Where the answer stands in the rendered conversation."""
        generation = self.render(turns, True)
        around = self.render([*turns, said(SENTINEL)], False)
        whole = self.render([*turns, said(answer)], False)
        before, after = around.split(SENTINEL)
        assert after.startswith(self.template.end), f"{self.template.name}: {after!r}"
        if not (whole.startswith(before) and whole.endswith(after)):
            return Parts(generation, whole.removesuffix(after), "", self.template.end, answer, rewritten=True)
        text = whole[len(before) : len(whole) - len(after)]
        apart = text.strip() != answer.strip()
        rewritten = apart or not (self.template.closing or before.startswith(generation))
        opened = generation + (self.template.closing or opening(generation, before))
        return Parts(generation, opened, text, self.template.end, answer if apart else text, rewritten)

    def continued(self, prompt: list[int], generation: str, rest: str) -> list[int]:
        """The ids of `prompt` and of a text after it, where nothing merges with the prompt."""
        joint = self.encode(generation + rest)
        return joint if joint[: len(prompt)] == prompt else prompt + self.encode(rest)

    def row(self, conversation: dict) -> dict:
        """What is asked for of one conversation."""
        turns = [{"role": "system", "content": conversation["system"]}] if conversation["system"] is not None else []
        turns.append({"role": "user", "content": conversation["prompt"]})
        try:
            prompt = self.prompt(turns)
        except TemplateError as error:
            return {"kind": "refused", "says": str(error)}
        try:
            parts = self.parts(turns, conversation["answer"])
        except TemplateError as error:
            return {"kind": "refused", "prompt": prompt, "says": str(error)}
        return {"prompt": prompt, **self.answered(prompt, parts)}

    def answered(self, prompt: list[int], parts: Parts) -> dict:
        """`rest`: the ids of `joint` after the prompt's (null where it does not begin with them); `begin`: how many ids
        come before the answer, at least and at most; `text`: what the answer's ids have to decode to (null:
        transformers itself decodes them to another text)."""
        between = parts.opened.removeprefix(parts.generation)
        texts = (between + parts.answer + parts.end, between)
        if self.template.closing or parts.rewritten:
            joint, opened = (self.continued(prompt, parts.generation, text) for text in texts)
        else:
            joint, opened = (self.encode(parts.generation + text) for text in texts)
        begins = [joint[: len(begin)] == begin for begin in (prompt, opened)]
        if all(begins):
            text = self.text_of(joint[len(opened) :], parts.answer)
        if parts.rewritten or not all(begins):
            text = self.spelled(parts.spelled)
        kind = "rewritten" if parts.rewritten else "equal" if all(begins) else "seam"
        rest, start = joint[len(prompt) :] if begins[0] else None, common(joint, opened)
        begin = [start, start + self.marked(joint[start:], parts.answer)]
        return {"kind": kind, "rest": rest, "begin": begin, "text": text}

    def marked(self, ids: list[int], answer: str) -> int:
        """1 where an answer's ids begin with a space marker that spells none of it."""
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        text = "".join(tokens)
        marks, blanks = len(text) - len(text.lstrip(MARK)), len(answer) - len(answer.lstrip(" "))
        return int(tokens[0] == MARK and marks > blanks)

    def text_of(self, ids: list[int], answer: str) -> str | None:
        """The answer's text, if transformers decodes it from the answer's ids."""
        return answer if self.tokenizer.decode(ids, skip_special_tokens=True) == answer else None

    def spelled(self, answer: str) -> str:
        """The answer as this tokenizer spells it: Qwen2's composes its letters."""
        return self.tokenizer.decode(self.encode(answer), skip_special_tokens=True)

    def end(self) -> int:
        """The token that ends a turn."""
        return self.tokenizer.convert_tokens_to_ids(self.template.end)


def said(text: str) -> dict:
    """The assistant's turn."""
    return {"role": "assistant", "content": text}


def opening(generation: str, before: str) -> str:
    """What is written between a generation prompt and the answer, where another text stands before the answer: all
    after the longest end of the generation prompt that is in it."""
    ends = (generation[at:] for at in range(len(generation)))
    return before.rpartition(next(end for end in ends if end in before))[2]


def common(a: list[int], b: list[int]) -> int:
    """How many ids two lists begin with alike."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
