"""Token ids of prompts with their references, so that every engine measures the same tokens.

    python tokens.py MODEL_DIR PROMPTS.jsonl [--limit N] [--equal-length L] > TOKENS.jsonl

A line of the result is {"ids": [...], "response_start": n}. The prompt is rendered by the model's chat template up to
where the answer begins, prompt and answer are tokenised apart and joined. --equal-length joins the ids of all prompts
into one row and cuts it into pieces of L (what is left over at the end is dropped); a piece's second half, from L // 2
on, counts as its response.
"""

import argparse
import json
import os
import sys

import jinja2
from tokenizers import Tokenizer


def read(path: str) -> list:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def template_of(folder: str):
    """The chat template, and the special tokens that it may name."""
    with open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8") as file:
        settings = json.load(file)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    special = {key: settings.get(key) for key in ("bos_token", "eos_token")}
    return environment.from_string(settings["chat_template"]), special


def tokenise(folder: str, prompts: list) -> list:
    """Ids and start of the answer of each prompt."""
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    template, special = template_of(folder)

    def encode(text: str) -> list:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def sequence(prompt: dict) -> dict:
        turns = [{"role": "user", "content": prompt["prompt"]}]
        opening = template.render(messages=turns, add_generation_prompt=True, **special)
        turns.append({"role": "assistant", "content": prompt["reference"]})
        whole = template.render(messages=turns, add_generation_prompt=False, **special)
        if not whole.startswith(opening):
            raise SystemExit(f"{folder}: the template with an answer does not begin with its generation prompt")
        asked = encode(opening)
        return {"ids": asked + encode(whole[len(opening) :]), "response_start": len(asked)}

    return [sequence(prompt) for prompt in prompts]


def equal(sequences: list, length: int) -> list:
    """Pieces of one length, without padding."""
    row = [token for sequence in sequences for token in sequence["ids"]]
    starts = range(0, len(row) - length + 1, length)
    return [{"ids": row[at : at + length], "response_start": length // 2} for at in starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--equal-length", type=int)
    options = parser.parse_args()
    found = tokenise(options.model, read(options.prompts)[: options.limit])
    if options.equal_length:
        found = equal(found, options.equal_length)
    for sequence in found:
        json.dump(sequence, sys.stdout)
        print()


if __name__ == "__main__":
    main()
