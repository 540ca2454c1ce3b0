"""The shipped student with its template, BOS and ends in other places. No dependency.

    python student_forms.py STUDENT OUT

Makes a folder in OUT for each form and prints their names, one a line: `plain`; `list`, the template in a list of named
ones; `both`, in chat_template.jinja with another one in tokenizer_config.json; `no-bos`, a template that writes no BOS;
`ends`, further tokens that end an answer; `bos-by-name`, a template that writes bos_token and eos_token.
"""

import json
import os
import shutil
import sys

OTHER = "{% for m in messages %}OLD {{ m['content'] }}{% endfor %}"


def edit(folder: str, name: str, change) -> None:
    path = os.path.join(folder, name)
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    change(value)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def settings(**values):
    return lambda folder: edit(folder, "tokenizer_config.json", lambda v: v.update(values))


def both(template: str):
    def make(folder: str) -> None:
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as file:
            file.write(template)
        settings(chat_template=OTHER)(folder)

    return make


def main() -> None:
    student, out = sys.argv[1:]
    with open(os.path.join(student, "tokenizer_config.json"), encoding="utf-8") as file:
        template = json.load(file)["chat_template"]
    bos = "{{ '<|begin_of_text|>' }}"
    assert template.startswith(bos)
    by_name = "{{ bos_token }}" + template.removeprefix(bos).replace("'<|eot_id|>'", "eos_token")
    named = [{"name": "tool_use", "template": OTHER}, {"name": "default", "template": template}]
    ends = lambda folder: edit(folder, "generation_config.json", lambda v: v.update(eos_token_id=[2043, 2045]))
    forms = {
        "plain": lambda folder: None,
        "list": settings(chat_template=named),
        "both": both(template),
        "no-bos": settings(chat_template=template.removeprefix(bos)),
        "ends": ends,
        "bos-by-name": settings(chat_template=by_name),
    }
    for name, make in forms.items():
        folder = os.path.join(out, name)
        shutil.copytree(student, folder)
        make(folder)
        print(name)


if __name__ == "__main__":
    main()
