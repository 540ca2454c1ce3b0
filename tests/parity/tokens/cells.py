"""A cell of the matrix: a model folder with one family's tokenizer and one template.

What must not matter is spread over the cells by their number, so that every form meets several families and
templates: where the template lies, where the control tokens are listed, which file names the token that ends a turn,
how the BOS is written, and a `truncation` or `padding` block that somebody left in tokenizer.json.
"""

import json
import os
from dataclasses import dataclass

from families import CONTROLS

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Template:
    """A template and the tokens that it writes."""

    name: str
    # Control tokens, and other added tokens: text that is one token.
    control: tuple
    bos: str
    end: str
    text: tuple = ()
    # It writes `eos_token` itself, which is therefore `end`.
    writes_eos: bool = False
    # What is written after a generation prompt that opens a thought, before a given answer.
    closing: str = ""


END_OF_TEXT = "<|endoftext|>"
THINK = ("<think>", "</think>")
CHANNELS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|constrain|>", "<|call|>")
TEMPLATES = [
    Template("gpt-oss", CHANNELS, "<|startoftext|>", "<|return|>"),
    Template(
        "llama3",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    Template("mistral", ("[INST]", "[/INST]"), "<s>", "</s>", writes_eos=True),
    Template("chatml", ("<|im_start|>", "<|im_end|>"), "<|im_start|>", "<|im_end|>"),
    Template("qwen3", ("<|im_start|>", "<|im_end|>"), "<|im_start|>", "<|im_end|>", text=THINK),
    Template(
        "r1",
        ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        text=THINK,
        writes_eos=True,
        closing="\n</think>\n\n",
    ),
    Template("no-system", ("<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>"),
]
# Goldens of these lie in tests/data: every family, every template and every form.
COMMITTED = [
    "bytes-o200k-gpt-oss",
    "bytes-o200k-chatml",
    "bytes-llama3-llama3",
    "bytes-llama3-r1",
    "bytes-qwen2-qwen3",
    "spm-prefix-mistral",
    "spm-prefix-r1",
    "spm-first-chatml",
    "spm-plain-no-system",
    "unigram-gpt-oss",
    "unigram-qwen3",
    "wordpiece-chatml",
]


@dataclass(frozen=True)
class Forms:
    """How a cell writes what can be written in several ways."""

    template: str
    control: str
    ends: str
    block: str
    bos: str

    @staticmethod
    def of(number: int) -> "Forms":
        """The forms of the cell with this number."""
        return Forms(
            template=["tokenizer_config.json", "chat_template.jinja", "a list of named ones"][number % 3],
            control=["tokenizer.json", "added_tokens_decoder"][number % 2],
            ends=["tokenizer_config.json", "generation_config.json", "config.json"][number // 2 % 3],
            block=["none", "truncation", "padding"][number // 3 % 3],
            bos=["text", "object"][number // 5 % 2],
        )


def added(vocab_size: int, vocab: dict, template: Template) -> list[dict]:
    """The vocabulary's control tokens and the template's, as tokenizer.json lists them: new ids after the others."""
    own = [token for token in CONTROLS if token in vocab]
    control = dict.fromkeys((*own, template.bos, template.end, *template.control, END_OF_TEXT))
    tokens, free = [], vocab_size
    for content in (*control, *template.text):
        known = vocab.get(content)
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        tokens.append(
            {"id": free if known is None else known, "content": content} | flags | {"special": content in control}
        )
        free += known is None
    return tokens


def vocabulary(tokenizer: dict) -> dict:
    """Ids by token, of any kind of model."""
    vocab = tokenizer["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {token: at for at, (token, _) in enumerate(vocab)}


def write(folder: str, tokenizer: dict, template: Template, forms: Forms) -> list[int]:
    """Writes the model folder; returns the ids that end an answer."""
    os.makedirs(folder, exist_ok=True)
    vocab = vocabulary(tokenizer)
    tokens = added(len(vocab), vocab, template)
    ids = {token["content"]: token["id"] for token in tokens}
    listed = forms.control == "tokenizer.json"
    # Those that the vocabulary has are in tokenizer.json anyhow.
    kept = [token for token in tokens if listed or token["content"] in vocab]
    save(
        folder,
        "tokenizer.json",
        tokenizer | {"added_tokens": sorted(kept, key=by_id)} | block(forms.block, ids[END_OF_TEXT]),
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": template.bos}
    if forms.bos == "object":
        flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        settings["bos_token"] = {"__type": "AddedToken", "content": template.bos} | flags
    by_tokenizer = forms.ends == "tokenizer_config.json" or template.writes_eos
    settings["eos_token"] = template.end if by_tokenizer else END_OF_TEXT
    if not listed:
        settings["added_tokens_decoder"] = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tokens}
    write_template(folder, settings, template, forms.template)
    save(folder, "tokenizer_config.json", settings)
    return sorted({ids[settings["eos_token"]], *write_ends(folder, ids, template, forms.ends)})


def by_id(token: dict) -> int:
    """The order of tokenizer.json's list."""
    return token["id"]


def block(which: str, pad: int) -> dict:
    """What somebody's training script left in tokenizer.json."""
    if which == "truncation":
        return {"truncation": {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}}
    if which == "padding":
        padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
        return {"padding": padding | {"pad_id": pad, "pad_type_id": 0, "pad_token": END_OF_TEXT}}
    return {}


def write_template(folder: str, settings: dict, template: Template, where: str) -> None:
    """The template in its place, with another one where it must not be taken."""
    with open(os.path.join(HERE, "templates", f"{template.name}.jinja"), encoding="utf-8") as file:
        source = file.read()
    other = "{{ 'not this template' }}"
    if where == "tokenizer_config.json":
        settings["chat_template"] = source
    elif where == "chat_template.jinja":
        settings["chat_template"] = other
        with open(os.path.join(folder, where), "w", encoding="utf-8") as file:
            file.write(source)
    else:
        settings["chat_template"] = [{"name": "tool_use", "template": other}, {"name": "default", "template": source}]


def write_ends(folder: str, ids: dict, template: Template, where: str) -> list[int]:
    """config.json and generation_config.json; the ids that one of them says end an answer."""
    end, config = ids[template.end], {"model_type": "llama"}
    if where == "generation_config.json":
        save(folder, where, {"eos_token_id": [end, ids[END_OF_TEXT]]})
    elif where == "config.json":
        config["eos_token_id"] = end
    save(folder, "config.json", config)
    return {"generation_config.json": [end, ids[END_OF_TEXT]], "config.json": [end]}.get(where, [])


def save(folder: str, name: str, value) -> None:
    """One line of JSON: these files are made, and many."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
