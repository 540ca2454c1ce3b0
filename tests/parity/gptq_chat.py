"""A GPTQ folder's conversations in transformers, against the token ids that the student was trained with.

    python gptq_chat.py FOLDER CONVERSATIONS.json FORM

FORM is a name to print; CONVERSATIONS is what `parity conversations` prints: the trained student's template, the tokens that
end an answer, and conversations with their ids, opening and answer apart. Compared: the template, `apply_chat_template`'s
ids of every opening, the answer's ids (what the rendered conversation has behind its opening, encoded as it stands), and
the generation configuration's ends. Prints one JSON object; exits with 6 at the first difference.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoTokenizer, GenerationConfig


def same(found, want, what: str) -> None:
    if found != want:
        print(f"{what}: {found} in transformers, {want} as trained", file=sys.stderr)
        sys.exit(6)


def messages(prompt: dict) -> list[dict]:
    system = [{"role": "system", "content": prompt["system"]}] if "system" in prompt else []
    return system + [{"role": "user", "content": prompt["prompt"]}]


def conversation(tokenizer, case: dict) -> None:
    prompt, asked = case["prompt"], messages(case["prompt"])
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    same(ids, case["ids"], f"{prompt['id']}, opening")
    opening = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    answered = asked + [{"role": "assistant", "content": prompt["reference"]}]
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    same(whole[: len(opening)], opening, f"{prompt['id']}, text of the opening")
    ids = tokenizer(whole[len(opening) :], add_special_tokens=False).input_ids
    same(ids[: len(case["answer"])], case["answer"], f"{prompt['id']}, answer")


def main() -> None:
    folder, path, form = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        trained = json.load(file)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    same(tokenizer.chat_template, trained["template"], "chat template")
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    same(sorted(ends if isinstance(ends, list) else [ends]), trained["ends"], "ends")
    for case in trained["conversations"]:
        conversation(tokenizer, case)
    result = {"gptq_conversations": len(trained["conversations"]), "form": form, "same_ids_in": "transformers"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
