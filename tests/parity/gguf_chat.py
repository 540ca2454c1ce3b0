"""A GGUF file's conversations in llama.cpp (through xllamacpp), against the ids that the student was trained with.

    python gguf_chat.py FILE.gguf CONVERSATIONS.json FORM

FORM is a name to print; CONVERSATIONS is what `parity conversations` prints. Compared: the template's text; every opening,
rendered by llama.cpp's own template engine and made into ids as its server does, BOS included; the answer's ids; and
whether generation stops at each of the trained student's ends (each token is forced in turn). llama.cpp takes some tokens
for ends by their text, whatever a file says: those are printed. Prints one JSON object; exits with 6 at the first
difference.
"""

import json
import sys
import urllib.request

from gguf_logits import server

# Ports of this machine are not asked through a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(address: str, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with OPENER.open(request, timeout=60) as answer:
        return json.load(answer)


def same(found, want, what: str) -> None:
    if found != want:
        print(f"{what}: {found} in llama.cpp, {want} as trained", file=sys.stderr)
        sys.exit(6)


def ids(address: str, text: str, special: bool) -> list[int]:
    body = {"content": text, "add_special": special, "parse_special": True}
    return ask(address, "/tokenize", body)["tokens"]


def conversation(address: str, case: dict) -> None:
    prompt = case["prompt"]
    system = [{"role": "system", "content": prompt["system"]}] if "system" in prompt else []
    asked = system + [{"role": "user", "content": prompt["prompt"]}]
    opening = ask(address, "/apply-template", {"messages": asked})["prompt"]
    same(ids(address, opening, True), case["ids"], f"{prompt['id']}, opening")
    answer = ids(address, prompt["reference"], False)
    same(answer, case["answer"][: len(answer)], f"{prompt['id']}, answer")


def stops(address: str, token: int) -> bool:
    """Whether generation ends where this token is chosen."""
    forced = {"prompt": [token], "n_predict": 1, "temperature": 0.0, "logit_bias": [[token, 1000.0]]}
    return ask(address, "/completion", forced)["stop_type"] == "eos"


def main() -> None:
    path, conversations, form = sys.argv[1:]
    with open(conversations, encoding="utf-8") as file:
        trained = json.load(file)
    llama = server(path)
    address = llama.listening_address
    same(ask(address, "/props")["chat_template"], trained["template"], "chat template")
    for case in trained["conversations"]:
        conversation(address, case)
    ending = [token for token in trained["special"] if stops(address, token)]
    same([token for token in trained["ends"] if token not in ending], [], "ends at which generation goes on")
    result = {"gguf_conversations": len(trained["conversations"]), "form": form, "same_ids_in": "llama.cpp"}
    result["ends"], result["ends_by_name_alone"] = trained["ends"], sorted(set(ending) - set(trained["ends"]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
