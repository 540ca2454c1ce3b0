"""The peer of `uspx distill`: LoRA on every linear map with peft and PyTorch, on the text of prompts and answers.

    python train.py STUDENT_DIR PROMPTS.jsonl [--limit N] [--rank R] [--step-tokens T] [--threads T] [--epochs 2]
                    [--device cuda] [--dtype bfloat16] [--checkpointing]

Prompts with a reference alone. A batch holds sequences of like length, at most --step-tokens with padding; the loss is
that of the answers' tokens, AdamW, gradients clipped to norm 1. What is timed are the steps alone, after one that
warms up. Prints one JSON line: tokens (of prompts and answers, not padding), seconds, tokens_per_second, loss.
"""

import argparse
import json
import os
import random
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def lessons(tokenizer, path: str, limit: int) -> list[tuple[list[int], int]]:
    found = []
    with open(path, encoding="utf-8") as file:
        for line in list(file)[:limit]:
            prompt = json.loads(line)
            system = [{"role": "system", "content": prompt["system"]}] if prompt.get("system") else []
            asked = system + [{"role": "user", "content": prompt["prompt"]}]
            start = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
            answered = asked + [{"role": "assistant", "content": prompt["reference"]}]
            ids = tokenizer.apply_chat_template(answered, return_dict=True)["input_ids"]
            found.append((ids, len(start)))
    return found


def batches(all_lessons: list, step_tokens: int) -> list[list]:
    made, batch = [], []
    for lesson in sorted(all_lessons, key=lambda lesson: len(lesson[0])):
        if batch and len(lesson[0]) * (len(batch) + 1) > step_tokens:
            made.append(batch)
            batch = []
        batch.append(lesson)
    return made + [batch]


def padded(batch: list) -> dict:
    width = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (own, start) in enumerate(batch):
        ids[row, : len(own)] = torch.tensor(own)
        labels[row, start : len(own)] = ids[row, start : len(own)]
        mask[row, : len(own)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("student")
    parser.add_argument("prompts")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--step-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the frozen weights; adapters are float32")
    parser.add_argument("--checkpointing", action="store_true", help="run every layer once more for its gradient")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.student)
    base = AutoModelForCausalLM.from_pretrained(args.student, dtype=getattr(torch, args.dtype)).to(args.device)
    if args.checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.config.use_cache = False
    config = LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    plan = [batch for _ in range(args.epochs) for batch in batches(lessons(tokenizer, args.prompts, args.limit), args.step_tokens)]
    random.Random(1).shuffle(plan)
    tokens, start, loss = 0, 0.0, 0.0
    for at, batch in enumerate(plan):
        if at == 1:
            settle()
            start = time.perf_counter()
        loss = model(**{name: ids.to(args.device) for name, ids in padded(batch).items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        tokens += sum(len(ids) for ids, _ in batch) if at else 0
    settle()
    seconds = time.perf_counter() - start
    print(json.dumps({"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds, "loss": loss.item()}))


main()
