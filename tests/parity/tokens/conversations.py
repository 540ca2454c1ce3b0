"""Forty awkward conversations: one question and its answer each, with or without a system message.

Each is awkward in one way, which its name says. `COMMITTED` are those whose goldens lie in tests/data.
"""

MARKERS = "<|end|> <|im_end|> <|eot_id|> </s> <end_of_turn> [INST] <think> <s>"
LONG_WORD = "Donaudampfschifffahrtselektrizit\u00e4ten" * 8

# Name, system message (None: none), question, answer.
_ALL = [
    # Answers that stand in the header of a turn, or in the name of a channel or block.
    ("one-letter", None, "Which option is right?", "a"),
    ("hi", None, "Greet me.", "hi"),
    ("final", None, "What is the last round called?", "final"),
    ("think", None, "What do you do before you speak?", "think"),
    ("user", None, "Who asks?", "user"),
    ("assistant", None, "Who answers?", "assistant"),
    ("model", None, "Who else answers?", "model"),
    ("system", "You are a system.", "Who sets the rules?", "system"),
    ("channel", None, "Where does the answer go?", "channel"),
    # Blanks at the ends and in between.
    ("leading-space", None, "List files.", " ls"),
    ("trailing-space", None, "List files. ", "ls "),
    ("leading-newline", None, "\nList files.", "\nls -l"),
    ("trailing-newlines", None, "List files.\n\n", "ls -l\n\n"),
    ("blanks-around", "  Be brief. \n", " \n List files.", "  \n ls \n  "),
    ("leading-tab", None, "\tWhat builds it?", "\tmake\tall"),
    ("crlf", None, "one\r\ntwo\r\n", "one\r\ntwo\r\n"),
    ("leading-crlf", None, "\r\nfoo", "\r\nfoo"),
    ("blank-runs", None, "Indent   it      twice.", "a    b        c\n\n\n\nd"),
    # Letters.
    ("emoji", None, "Is it out? \U0001f680", "\U0001f44d\U0001f680"),
    (
        "joined-emoji",
        None,
        "A family and a flag, please.",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308",
    ),
    ("combining", None, "Decompose e\u0301 and n\u0303.", "e\u0301 a\u0308 n\u0303 o\u0302\u0301"),
    ("combining-first", None, "An accent alone?", "\u0301a"),
    (
        "latin",
        None,
        "F\u00fcr wen ist die Stra\u00dfe?",
        "f\u00fcr Stra\u00dfe, d\u00e9j\u00e0 vu, \u017c\u00f3\u0142\u0107, \u00ff",
    ),
    (
        "cjk",
        None,
        "\u4f60\u597d\u5417\uff1f",
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u6771\u4eac\u3067\u3059\u3002\ud55c\uad6d\uc5b4",
    ),
    (
        "other-scripts",
        None,
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    ),
    ("private-use", None, "Odd letters?", "\ue000x\uf8ff\u200b\ufeffy"),
    ("space-marker", None, "Is \u2581 a blank?", "\u2581ls\u2581-l"),
    # The system message.
    ("empty-system", "", "List files.", "ls"),
    ("shell", "You write one command.", "Count the Python files.", "find . -name '*.py' | wc -l"),
    # Text of control tokens and of templates.
    ("markers-in-the-question", None, f"What do {MARKERS} mean?", "They end or open a turn."),
    ("markers-in-the-answer", None, "Name some markers.", f"{MARKERS} and so on"),
    ("think-block", None, "Think, then answer.", "<think>\nhm\n</think>\nls"),
    ("open-think", None, "Which tag opens a thought?", "Use <think> here"),
    ("inst", None, "How does it begin? [INST]", "[/INST] ls [INST]"),
    ("channel-text", None, "How is the answer marked?", "<|channel|>final<|message|>ls"),
    ("template-text", None, "What is {{ messages }}?", "{% for m in messages %}{{ m.content }}{# c #}"),
    # Longer ones.
    ("repeated", None, "Say: Say it again.", "Say: Say it again."),
    ("long-word", None, "A long word?", LONG_WORD),
    ("code", None, "Hello in Rust?", 'fn main() {\n    println!("hi {}", 12345678);\n}\n'),
    ("json", None, 'Fill {"a": null}.', '{"a": [1, 2.50, -3e10], "b\\n": "\\u00e9"}'),
]

COMMITTED = [
    "one-letter",
    "final",
    "think",
    "leading-space",
    "leading-newline",
    "crlf",
    "joined-emoji",
    "combining-first",
    "latin",
    "empty-system",
    "markers-in-the-question",
    "think-block",
    "channel-text",
]


def conversations() -> dict[str, dict]:
    """`system` (may be null), `prompt` and `answer`, by name."""
    keys = ("system", "prompt", "answer")
    return {name: dict(zip(keys, texts, strict=True)) for name, *texts in _ALL}


assert len(conversations()) == 40
