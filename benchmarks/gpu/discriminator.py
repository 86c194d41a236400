"""The discriminator at true size on one GPU: ours against upstream's way of doing the same.

    python benchmarks/gpu/discriminator.py [PART ...] [--out FILE] [--tiny]

Qwen3-VL-2B upcycled to 4 experts, random weights, bf16. 4 prompts with a 768 x 768 image (576 tokens) and a question, 16 responses each,
captions and cots scored apart as upstream presents them, a teacher of 300 + 1,200 tokens a prompt. Parts:

correctness   packed against plain: scores and gradients, both in bf16, against plain in float32 (4 layers)
experts       one layer's block, forward and with backward: transformers' loop and grouped product, ours
attention     one layer's attention over a group: packed, padded with a dense mask, flex_attention by a block mask
alone         each habit of upstream's given up alone, for one prompt with its 16 responses
together      the same work in one packed row, with and without the rest of upstream's habits
ours          64 responses: scoring alone, and scoring with the update's backward pass in one; three distributions of lengths
upstream      the same its way, for the first distribution
step          ours with the optimizer's step (AdamW, states in bf16), and where its time goes
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from measure import Log, arguments, pick_device
from shapes import H100_BF16, Prompts, causal, make_discriminator, make_prompts, text_config, text_flops, vision_flops
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3VLMoeTextConfig
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextSparseMoeBlock
from upstream import Way, Work, score, score_and_update, update, use_plain_kernels

from prism_trainer.discriminator.losses import bradley_terry
from prism_trainer.packed.attention import attend
from prism_trainer.packed.backbone import read_packed, use_packed_kernels
from prism_trainer.packed.experts import mix_experts
from prism_trainer.packed.layout import Layout

PARTS = ("correctness", "experts", "attention", "alone", "together", "ours", "upstream", "step")
GROUP, CAPTION_SHARE = 16, 0.2
LENGTHS = {"mean 2,000": (512, 3488), "mean 3,600": (1056, 6144), "all 6,144": (6144, 6144)}
"""Response tokens, even between these; the paper's limit is 6,144."""


class Bench:
    def __init__(self, log: Log, tiny: bool) -> None:
        self.log, self.tiny = log, tiny
        self.device = log.device
        self.dtype = torch.float32 if tiny else torch.bfloat16
        self.size, self.side = ("tiny", 64) if tiny else ("2B", 768)
        self.scale = 64 if tiny else 1

    def model(self, layers: int | None = None, dtype: torch.dtype | None = None) -> Any:
        return make_discriminator(self.size, self.device, dtype or self.dtype, layers).train()

    def work(self, low: int, high: int, prompts: int = 4) -> Work:
        generator = torch.Generator().manual_seed(2)

        def tokens(count: int) -> list[int]:
            return torch.randint(0, 250, (max(1, count // self.scale),), generator=generator).tolist()

        def response(length: int) -> tuple[list[int], list[int]]:
            return tokens(round(CAPTION_SHARE * length)), tokens(length - round(CAPTION_SHARE * length))

        lengths = [low + (high - low) * index // (GROUP - 1) for index in range(GROUP)]
        shown = make_prompts(self.size, [150 + 10 * index for index in range(prompts)], self.side, self.device)
        teachers = [response(1500) for _ in range(prompts)]
        responses = [response(length) for _ in range(prompts) for length in lengths]
        return Work(shown, teachers, responses, [index // GROUP for index in range(prompts * GROUP)])


def packed_scores(model: Any, prompts: Prompts, texts: list[tuple[list[int], list[int]]], prompt_of: list[int]) -> Tensor:
    """(R, 2) scores of captions and cots from one packed row."""
    order = sorted(range(len(texts)), key=lambda index: prompt_of[index])
    rows = [span for index in order for span in texts[index]]
    states = read_packed(model.model, prompts, rows, [prompt_of[index] for index in order for _ in range(2)], model.config.image_token_id)
    ends = torch.tensor([start + len(row) - 1 for start, row in zip(states.layout.row_starts, rows, strict=True)], device=model.device)
    scores = model.read_scores(states.hidden_TH[ends]).view(-1, 2)
    return scores[torch.tensor(order, device=model.device).argsort()]


def pack_and_score(model: Any, work: Work) -> Tensor:
    """Scores of the responses, a prompt's group at a time, without gradient."""
    with torch.no_grad():
        parts = [work.of(prompt) for prompt in range(len(work.teachers))]
        return torch.cat([packed_scores(model, part.prompts, list(part.responses), list(part.prompt_of)) for part in parts])


def pack_and_update(model: Any, work: Work, teacher_each: bool = False) -> Tensor:
    """Scores of the responses and the gradients of the preference loss, a prompt's group at a time, in one pass."""
    scores = []
    for prompt in range(len(work.teachers)):
        part = work.of(prompt)
        count = len(part.responses)
        teachers = list(part.teachers) * (count if teacher_each else 1)
        both = packed_scores(model, part.prompts, [*teachers, *part.responses], [0] * (len(teachers) + count))
        (bradley_terry(both[: len(teachers)], both[len(teachers) :]).sum() / len(work.responses)).backward()
        scores.append(both[len(teachers) :].detach())
    return torch.cat(scores)


def use_packed(model: Any, experts: str = "ours") -> None:
    """Our kernels; with `experts` of transformers' in place of ours, where asked."""
    use_plain_kernels(model, experts if experts != "ours" else "grouped_mm")
    use_packed_kernels(model.model)
    if experts != "ours":
        for layer in model.model.language_model.layers:
            layer.mlp.experts.__dict__.pop("forward", None)


def packed_flops(model: Any, work: Work, side: int, teachers: bool) -> float:
    """One forward pass, everything once."""
    tokens, seen = int(work.prompts.mask_PT.sum()), sum(causal(int(one)) for one in work.prompts.mask_PT.sum(dim=1))
    shown = list(zip(work.responses, work.prompt_of, strict=True)) + (list(zip(work.teachers, range(99), strict=False)) if teachers else [])
    for spans, prompt in shown:
        before = int(work.prompts.mask_PT[prompt].sum())
        tokens += sum(map(len, spans))
        seen += sum(causal(len(span), before) for span in spans)
    return text_flops(model, tokens, seen) + vision_flops(model, len(work.teachers), side)


def alone_flops(model: Any, work: Work, side: int, teachers: bool) -> float:
    """One forward pass of every span after its own copy of the prompt; with the teacher once for every response, or without it."""
    total = 0.0
    for spans, prompt in zip(work.responses, work.prompt_of, strict=True):
        before = int(work.prompts.mask_PT[prompt].sum())
        for span in [*spans, *(work.teachers[prompt] if teachers else ())]:
            total += text_flops(model, before + len(span), causal(before + len(span))) + vision_flops(model, 1, side)
    return total


def report(log: Log, what: str, flops: float, tokens: int, timed: dict[str, float], **more: Any) -> None:
    """MFU counts each way's own operations once forward and, with an update, twice backward; recomputation is not work."""
    rates = {
        "tokens_per_s": tokens / timed["seconds"],
        "tflops": flops / timed["seconds"] / 1e12,
        "mfu": flops / timed["seconds"] / H100_BF16,
    }
    log.write(what, **timed, **rates, **more)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def correctness(bench: Bench) -> None:
    work = bench.work(200, 900, prompts=1)
    exact = bench.model(layers=4, dtype=torch.float32)
    model = bench.model(layers=4)
    model.load_state_dict(exact.state_dict())
    names = (
        "layers.0.self_attn.q_proj",
        "layers.1.mlp.experts.gate_up",
        "layers.1.mlp.experts.down",
        "layers.0.mlp.gate",
        "visual.blocks.0.attn.qkv.weight",
    )
    way = Way(train_experts="eager", masked=False, teacher_each=False)

    def of(one: Any, run: Callable[[], Tensor]) -> dict[str, Tensor]:
        one.zero_grad()
        scores = run()
        grads = {key: p.grad for name, p in one.named_parameters() for key in names if key in name and p.grad is not None}
        return {"scores": scores, **{key: grad.float().clone() for key, grad in grads.items()}}

    reference = of(exact, lambda: update(exact, work, way)[1])
    plain = of(model, lambda: update(model, work, way)[1])
    use_packed(model)
    packed = of(model, lambda: pack_and_update(model, work))
    for key in reference:
        bench.log.write("correctness", tensor=key, plain=distance(plain[key], reference[key]), packed=distance(packed[key], reference[key]))
    bench.log.write("correctness scores", exact=reference["scores"][:3].flatten().tolist(), packed=packed["scores"][:3].flatten().tolist())


def experts(bench: Bench) -> None:
    text = text_config(bench.size)
    config = Qwen3VLMoeTextConfig(
        **{**text, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": text["intermediate_size"]}
    )
    with torch.device(bench.device):
        block = Qwen3VLMoeTextSparseMoeBlock(config).to(bench.dtype)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.02)

    def ours(states: Tensor) -> Tensor:
        _, weights, chosen = block.gate(states)
        return mix_experts(states, block.experts.gate_up_proj, block.experts.down_proj, weights, chosen)

    for tokens in (2048, 8192, 32768, 65536):
        states = torch.randn(tokens // bench.scale, config.hidden_size, device=bench.device, dtype=bench.dtype, requires_grad=True)
        flops = 12.0 * len(states) * config.hidden_size * config.moe_intermediate_size
        for name in ("eager", "grouped_mm", "ours", "every_expert"):
            block.experts.config._experts_implementation = name
            forward = ours if name == "ours" else (lambda given: block(given.unsqueeze(0))[0])

            def backward(forward: Callable[[Tensor], Tensor] = forward, states: Tensor = states) -> None:
                forward(states).sum().backward()

            with torch.no_grad():
                once = bench.log.time(lambda forward=forward, states=states: forward(states), warm=2, repeats=5)
            report(bench.log, "experts forward", flops, len(states), once, rows=len(states), experts=name)
            if name != "every_expert":
                both = bench.log.time(backward, warm=2, repeats=5)
                report(bench.log, "experts forward and backward", 3 * flops, len(states), both, rows=len(states), experts=name)


def attention(bench: Bench) -> None:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    text = text_config(bench.size)
    heads, key_heads, size = text["num_attention_heads"], text["num_key_value_heads"], text["head_dim"]
    lengths = [max(1, (1056 + 5088 * index // 15) // bench.scale) for index in range(16)]
    prompt = 736 // bench.scale
    layout = Layout.of([prompt], lengths, [0] * 16, bench.device)
    tokens = prompt + sum(lengths)
    q, k, v = (
        torch.randn(tokens, n, size, device=bench.device, dtype=bench.dtype, requires_grad=True) for n in (heads, key_heads, key_heads)
    )
    seen = causal(prompt) + sum(causal(length, prompt) for length in lengths)
    flops = 4.0 * heads * size * seen
    segment = torch.arange(17, device=bench.device).repeat_interleave(torch.tensor([prompt, *lengths], device=bench.device))

    def tree(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & ((segment[query] == segment[key]) | (segment[key] == 0))

    def both(forward: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: forward().sum().backward()

    ways: dict[str, Callable[[], Tensor]] = {"packed": lambda: attend(q, k, v, layout, size**-0.5)}
    if not bench.tiny:
        block = create_block_mask(tree, None, None, tokens, tokens, device="cuda", _compile=True)
        flex = torch.compile(flex_attention)
        ways["flex"] = lambda: flex(*(x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)), block_mask=block, enable_gqa=True)
    longest = max(lengths)
    mask = torch.zeros(16, 1, longest, prompt + longest, dtype=torch.bool, device=bench.device)
    for row, length in enumerate(lengths):
        mask[row, 0, :, :prompt] = True
        mask[row, 0, :, prompt : prompt + length] = torch.ones(longest, length, dtype=torch.bool, device=bench.device).tril()
    rows = torch.arange(16 * longest, device=bench.device) % tokens
    columns = torch.arange(16 * (prompt + longest), device=bench.device) % tokens

    def padded() -> Tensor:
        shaped = q[rows].view(16, longest, heads, size), *(x[columns].view(16, prompt + longest, key_heads, size) for x in (k, v))
        return functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in shaped), attn_mask=mask, enable_gqa=True)

    ways["padded, dense mask"] = padded
    for name, forward in ways.items():
        try:
            with torch.no_grad():
                report(bench.log, "attention forward", flops, tokens, bench.log.time(forward, warm=2, repeats=5), way=name)
            report(
                bench.log, "attention forward and backward", 3.5 * flops, tokens, bench.log.time(both(forward), warm=2, repeats=3), way=name
            )
        except Exception as error:
            bench.log.write("attention failed", way=name, error=str(error)[:300])


def alone(bench: Bench) -> None:
    work, model = bench.work(*LENGTHS["mean 2,000"], prompts=1), bench.model()
    tokens = sum(len(span) for one in work.responses for span in one)
    habits = Way()
    grouped = {"train_experts": "grouped_mm", "score_experts": "grouped_mm"}
    plain = {
        "upstream's way": habits,
        "score and train in one pass": habits.but(scores_apart=False),
        "teacher once a prompt": habits.but(teacher_each=False),
        "image once a prompt": habits.but(vision_each=False),
        "no dense attention mask": habits.but(masked=False),
        "grouped experts": habits.but(**grouped),
        "all of these, no packing": habits.but(scores_apart=False, teacher_each=False, vision_each=False, masked=False, **grouped),
    }
    first = work.of(0)
    score_and_update(model, Work(first.prompts, first.teachers, first.responses[:1], [0]), habits)
    for name, way in plain.items():
        model.zero_grad()
        report(bench.log, "alone", 0.0, tokens, bench.log.time(lambda way=way: score_and_update(model, work, way), warm=0), change=name)


def together(bench: Bench) -> None:
    """The same work as in `alone`."""
    work, model = bench.work(*LENGTHS["mean 2,000"], prompts=1), bench.model()
    tokens = sum(len(span) for one in work.responses for span in one)

    def packed(experts: str, apart: bool, teacher_each: bool) -> Callable[[], None]:
        def run() -> None:
            if apart:
                pack_and_score(model, work)
            pack_and_update(model, work, teacher_each)

        use_packed(model, experts)
        return run

    packs = {
        "shared prefix and packing, with the rest upstream's": ("eager", True, True),
        "all together": ("ours", False, False),
        "all together, transformers' loop over experts": ("eager", False, False),
        "all together, transformers' grouped experts": ("grouped_mm", False, False),
    }
    for name, given in packs.items():
        model.zero_grad()
        report(bench.log, "alone", 0.0, tokens, bench.log.time(packed(*given), warm=1), change=name)


def ours(bench: Bench) -> None:
    model = bench.model()
    use_packed(model)
    for name, (low, high) in LENGTHS.items():
        work = bench.work(low, high)
        tokens = sum(len(span) for one in work.responses for span in one)
        scoring, training = (packed_flops(model, work, bench.side, teachers) for teachers in (False, True))
        timed = bench.log.time(lambda work=work: pack_and_score(model, work), warm=1)
        report(bench.log, "scoring", scoring, tokens, timed, way="ours", lengths=name)
        model.zero_grad()
        timed = bench.log.time(lambda work=work: pack_and_update(model, work), warm=1)
        report(bench.log, "scoring and update", 3 * training, tokens, timed, way="ours", lengths=name)


def upstream(bench: Bench) -> None:
    """One of the four prompts, times four: each costs the same."""
    model, name = bench.model(), "mean 2,000"
    work, prompts = bench.work(*LENGTHS[name], prompts=1), 4
    tokens = prompts * sum(len(span) for one in work.responses for span in one)
    scoring, training = (prompts * alone_flops(model, work, bench.side, teachers) for teachers in (False, True))
    warm = Work(work.prompts, work.teachers, work.responses[:1], [0])
    score_and_update(model, warm, Way())
    apart = bench.log.time(lambda: score(model, work, Way()), warm=0)
    apart["seconds"] *= prompts
    report(bench.log, "scoring", scoring, tokens, apart, way="upstream", lengths=name)
    model.zero_grad()
    timed = bench.log.time(lambda: update(model, work, Way()), warm=0)
    timed["seconds"] = prompts * timed["seconds"] + apart["seconds"]  # its update does not use what its scoring found
    report(bench.log, "scoring and update", scoring + 3 * training, tokens, timed, way="upstream", lengths=name)


def step(bench: Bench) -> None:
    model = bench.model()
    use_packed(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    work = bench.work(*LENGTHS["mean 3,600"])
    tokens = sum(len(span) for one in work.responses for span in one)

    def run() -> None:
        pack_and_update(model, work)
        optimizer.step()
        optimizer.zero_grad()

    timed = bench.log.time(run, warm=1)
    report(bench.log, "step with optimizer", 3 * packed_flops(model, work, bench.side, True), tokens, timed, lengths="mean 3,600")
    profile(bench, run)


def profile(bench: Bench, run: Callable[[], None]) -> None:
    """Device time by kernel, the first twenty."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    kinds = [ProfilerActivity.CPU] if bench.tiny else [ProfilerActivity.CUDA]
    with record(activities=kinds) as found:
        run()
        bench.log.wait()
    by = "self_cpu_time_total" if bench.tiny else "self_cuda_time_total"
    key = by.replace("cuda", "device")
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events)
    for event in events[: 3 if bench.tiny else 24]:
        bench.log.write(
            "profile", kernel=event.key[:100], calls=event.count, share=getattr(event, key) / total, ms=getattr(event, key) / 1e3
        )


def main() -> None:
    given = arguments(__doc__, PARTS)
    bench = Bench(Log(given.out, pick_device(given.tiny)), given.tiny)
    failed = []
    for part in given.parts:
        try:
            {one.__name__: one for one in (correctness, experts, attention, alone, together, ours, upstream, step)}[part](bench)
        except Exception:  # what the other parts measure is worth having
            traceback.print_exc()
            failed.append(part)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
