"""Times the base model: one image-caption training step and beam-5 generation, in seconds and as a fraction of the machine's matmul limit.

    python benchmarks/model.py [--threads 2] [--repeats 3] [--image-size 384] [--batch 4] [--arch unival_base]

Every figure is the median of ``--repeats`` runs after one warm-up; the matmul limit (a square matmul in float32 or bfloat16)
is measured between them in the same process, because the speed of shared machines drifts.  Weights are random.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from unival.generation.search import build_generator
from unival.models.config import UnivalConfig
from unival.models.unival import SIZES, UnivalModel

PUBLISHED_VOCABULARY = 59457


def dictionary() -> Dictionary:
    """A dictionary of the published size."""
    result = Dictionary()
    while len(result) < PUBLISHED_VOCABULARY:
        result.add_symbol(f"symbol{len(result)}")
    return result


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time after one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_limit(dtype: torch.dtype, size: int = 2048) -> float:
    """GFLOP/s of a square matmul: the best of 8."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def gigaflops(run: Callable[[], object]) -> float:
    """Floating point operations of matmuls and convolutions in one run."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def batch(args: argparse.Namespace, vocabulary: Dictionary) -> dict:
    """Random images, a six-token prompt, targets of ``--target`` tokens."""
    torch.manual_seed(0)
    size = args.batch
    return {
        "src_tokens": torch.randint(4, len(vocabulary), (size, 8)),
        "src_lengths": torch.full((size,), 8),
        "prev_output_tokens": torch.randint(4, len(vocabulary), (size, args.target)),
        "media": [
            {
                "modality": "image",
                "values": torch.randn(size, 3, args.image_size, args.image_size),
                "rows": torch.arange(size),
            }
        ],
    }


def training_step(
    model: UnivalModel, net_input: dict, optimizer: torch.optim.Optimizer, parts: dict[str, list[float]], bf16: bool
) -> None:
    """Forward, backward, optimiser; adds the time of each to ``parts``."""
    marks = [time.perf_counter()]
    target = net_input["prev_output_tokens"].flatten()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits, _ = model([net_input])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), target, label_smoothing=0.1)
    marks.append(time.perf_counter())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    marks.append(time.perf_counter())
    optimizer.step()
    marks.append(time.perf_counter())
    for name, start, end in zip(("forward", "backward", "optimiser"), marks, marks[1:], strict=False):
        parts.setdefault(name, []).append(end - start)


def report(name: str, wall: float, flops: float, limit: float, note: str = "") -> None:
    """One line of the result."""
    share = flops / wall / limit
    sys.stdout.write(f"{name:34s} {wall:7.2f} s   {flops:8.0f} GFLOP   {share:5.0%} of {limit:5.0f} GFLOP/s   {note}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--target", type=int, default=20)
    parser.add_argument("--generate", type=int, default=16, help="tokens to generate")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--arch", choices=SIZES, default="unival_base")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vocabulary = dictionary()
    cfg = OmegaConf.structured(UnivalConfig(**SIZES[args.arch]))
    model = UnivalModel.build_model(cfg, SimpleNamespace(source_dictionary=vocabulary))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.999), fused=True)
    net_input = batch(args, vocabulary)

    model.train()
    flops = gigaflops(lambda: training_step(model, net_input, optimizer, {}, False))
    for bf16 in (False, True):
        limit = matmul_limit(torch.bfloat16 if bf16 else torch.float32)
        parts: dict[str, list[float]] = {}
        wall = seconds(lambda: training_step(model, net_input, optimizer, parts, bf16), args.repeats)  # noqa: B023
        note = ", ".join(f"{name} {statistics.median(times[1:]):.2f}" for name, times in parts.items())
        report(f"training step, {'bf16 autocast' if bf16 else 'float32'}", wall, flops, limit, note)

    model.eval()
    options = argparse.Namespace(beam=args.beam, min_len=args.generate, max_len_b=args.generate)
    generator = build_generator([model], vocabulary, options)
    source = {key: value for key, value in net_input.items() if key != "prev_output_tokens"}

    def encode() -> None:
        with torch.no_grad():
            model.encoder(**source)

    def generate() -> None:
        generator.generate([model], {"net_input": {"groups": [source]}}, bos_token=vocabulary.bos())

    flops = gigaflops(generate)
    limit = matmul_limit(torch.float32)
    note = f"encoder {seconds(encode, args.repeats):.2f}"
    report(f"generation, beam {args.beam}, {args.generate} tokens", seconds(generate, args.repeats), flops, limit, note)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(
        f"peak memory {peak:.1f} GiB; {args.threads} threads, batch {args.batch}, {args.image_size} px, {args.arch}\n"
    )


if __name__ == "__main__":
    main()
