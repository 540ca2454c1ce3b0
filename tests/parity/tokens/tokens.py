"""The matrix of token parity: families of tokenizers x templates x awkward conversations, with transformers' ids.

    python tokens.py              writes tests/data/tokens/ anew, the same to the last byte: a part of both
    python tokens.py --check      makes them anew and compares; exits with 6 where they differ
    python tokens.py --out DIR    writes the whole matrix

    DIR/conversations.json           system, prompt and answer of every conversation, by name
    DIR/FAMILY-TEMPLATE/             a model folder without weights (cells.py)
    DIR/FAMILY-TEMPLATE/golden.json  `ends`, and per conversation what reference.py says; or `refused`: a tokenizer
                                     that uspx must not take, since its tokens cannot be spelled back

tests/engine/tokens.rs compares. The templates are our own, compact ones: with text messages and without tools they do
what these published ones do: openai/gpt-oss-20b's, Llama-3.2-Instruct's, Mistral-7B-Instruct-v0.3's, ChatML's,
Qwen3's, DeepSeek-R1-Distill's, and Gemma 2's (`no-system`). Prints one JSON object.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
import tempfile
from collections import Counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import cells
from conversations import COMMITTED, conversations
from families import families
from reference import Cell

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "..", "data", "tokens")
# All of tests/data/tokens, in bytes.
LARGEST = 600_000


def golden(folder: str, template: cells.Template, chosen: dict) -> dict:
    """What is asked for of every conversation in a cell."""
    cell = Cell(folder, template)
    return {"end": cell.end(), "rows": {name: cell.row(conversation) for name, conversation in chosen.items()}}


def make(out: str, whole: bool) -> Counter:
    """Writes the cells and counts their rows by kind."""
    os.makedirs(out)
    chosen = {name: each for name, each in conversations().items() if whole or name in COMMITTED}
    cells.save(out, "conversations.json", chosen)
    counts, met = Counter(conversations=len(chosen)), set()
    pairs = [(family, template) for family in families().items() for template in cells.TEMPLATES]
    for number, ((family, tokenizer), template) in enumerate(pairs):
        name, forms = f"{family}-{template.name}", cells.Forms.of(number)
        if not whole and name not in cells.COMMITTED:
            continue
        met |= {family, template.name, *vars(forms).items()}
        folder = os.path.join(out, name)
        wanted = {"ends": cells.write(folder, tokenizer, template, forms)}
        if family == "wordpiece":
            wanted["refused"] = "WordPiece"
        else:
            wanted |= golden(folder, template, chosen)
        cells.save(folder, "golden.json", wanted)
        counts.update(["cells", *(row["kind"] for row in wanted.get("rows", {}).values())])
    complete(met)
    return counts


def complete(met: set) -> None:
    """Every family, every template and every form has to stand in some cell."""
    forms = {pair for number in range(90) for pair in vars(cells.Forms.of(number)).items()}
    missing = ({*families(), *(template.name for template in cells.TEMPLATES)} | forms) - met
    assert not missing, f"no cell has {missing}"


def files(folder: str) -> dict[str, int]:
    """Every file below, and its size."""
    found = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(path, folder): os.path.getsize(path) for path in found}


def check(made: str) -> list[str]:
    """Files that are not as committed."""
    names = files(made) | files(DATA)
    equal = filecmp.cmpfiles(made, DATA, names, shallow=False)[0]
    return sorted(set(names) - set(equal))


def main() -> int:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description="token parity with transformers")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if arguments.out:
        counts = make(arguments.out, whole=True)
        print(json.dumps({"token_matrix": counts}))
        return 0
    with tempfile.TemporaryDirectory() as place:
        made = os.path.join(place, "tokens")
        counts = make(made, whole=False)
        size = sum(files(made).values())
        assert size < LARGEST, f"{size} bytes are too many to commit"
        if arguments.check:
            different = check(made)
            print(json.dumps({"token_goldens": counts, "agree": not different, "different": different}))
            return 6 if different else 0
        shutil.rmtree(DATA, ignore_errors=True)
        shutil.copytree(made, DATA)
        print(json.dumps({"token_goldens": counts, "bytes": size}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
