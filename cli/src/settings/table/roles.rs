//! What the roles themselves are started with.

use super::Usual::{Is, Needed, Open};

super::rows! {
    "nats" Both [""] --"nats" Needed(r#""nats://box:4222""#);
    "The NATS server: nats://host:4222, or tls://host:4222"
    "credentials" Both [""] --"credentials" Open { then: "none", example: r#""/etc/uspx/colony.creds""# };
    "A NATS credentials file (JWT and seed), where the server asks for one"
    "namespace" Both [""] --"namespace" Is(r#""uspx""#);
    "The colony's names on the server: several colonies may share it"
    "store" Both [""] --"store" Needed(r#""s3://bucket/uspx""#);
    "The object store: a folder that all machines see, or s3://bucket/prefix with the usual AWS_... variables"

    "colony" Coordinator [""] --"" Is(r#""home""#);
    "The colony's name: it stands in releases"
    "state" Coordinator [""] --"state" Needed(r#""/var/lib/uspx/coordinator""#);
    "Where ledger and mask are kept"
    "train" Coordinator [""] --"train" Needed(r#""train.jsonl""#);
    "Prompts to probe and distil on"
    "validation" Coordinator [""] --"validation" Open { then: "the last twentieth of the training prompts", example: r#""validation.jsonl""# };
    "Prompts for choices"
    "gate" Coordinator [""] --"gate" Needed(r#""gate.jsonl""#);
    "Held-out prompts for the release gate"
    "text" Coordinator [""] --"text" Is("false");
    "Whether the prompts are plain text, one a line"
    "skip_bad" Coordinator [""] --"skip-bad" Is("false");
    "Whether to go on without lines that are not prompts"
    "allow_secrets" Coordinator [""] --"allow-secrets" Is("false");
    "Whether to send prompts to the workers although something in them looks like a secret"
    "stay" Coordinator [""] --"stay" Is("false");
    "Whether to stay when the campaign is over, and go on when prompts are added"
    "silence" Coordinator ["seconds"] --"" Is("15");
    "How long a worker may be silent before its tasks go to others"
    "lease" Coordinator ["seconds"] --"" Is("60");
    "How long a task's holder may make no progress before it is delivered again"
    "takeover" Coordinator ["seconds"] --"" Is("60");
    "How long this coordinator's claim on the colony may stand unrenewed before another may take over"

    "name" Worker [""] --"name" Needed(r#""spare-box""#);
    "The worker's name, its own in the colony"
    "models" Worker [""] --"models" Needed(r#"["./teacher", "./student"]"#);
    "Model folders on this machine"
    "worker_state" Worker [""] --"state" Open { then: "~/.local/state/uspx/NAME", example: r#""/var/lib/uspx/worker""# };
    "Where finished work is kept until it is taken, with room for a student; each worker its own"
    "device" Worker [""] --"device" Is(r#""cpu""#);
    "Where to run: cpu, cuda:0, metal"
    "dtype" Worker [""] --"dtype" Open { then: "f32", example: r#""f32""# };
    "What to compute with: f32, or bf16 on a GPU"
    "memory" Worker ["bytes, with a unit"] --"memory" Open { then: "what is free", example: r#""4GiB""# };
    "Memory to stay within"
    "stream" Worker [""] --"stream" Is("false");
    "Whether to leave the weights in their file and read one layer at a time, whatever the memory"
    "threads" Worker ["threads"] --"threads" Open { then: "the physical cores", example: "4" };
    "Threads for the mathematics"
    "batch_tokens" Worker ["tokens"] --"batch-tokens" Open { then: "as many as the memory takes, 4096 where that is enough", example: "4096" };
    "Tokens run together"

    "teacher" Up [""] --"" Open { then: "uspx up asks for it", example: r#""./teacher""# };
    "The teacher: a mixture-of-experts model's folder"
    "student" Up [""] --"" Open { then: "the loop stops at the mask", example: r#""./student""# };
    "The base student: a dense model's folder"
    "prompts" Up [""] --"" Open { then: "train and gate", example: r#""prompts.jsonl""# };
    "Prompts in one file that is split by itself, instead of train and gate"
    "out" Up [""] --"" Is(r#""uspx-up""#);
    "Where everything is put; started again with the same folder, it goes on"
}
