"""Times training steps and generation of the base model on a GPU, beside the matmul limit, and says where the time goes.

    python benchmarks/gpu.py [--rounds 20] [--only caption] [--profile 12]

Random weights and inputs, label smoothing, Adam; float32 (with TF32), bfloat16 autocast, and half-precision weights as fairseq's ``--fp16``
and ``--bf16`` make them.  ``share`` is the time that a step's floating-point operations take at the speed of a square matmul of the same
precision, divided by the step's time.  ``--profile N`` prints the N kernels that take most time, and how long the GPU was busy.
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fairseq.utils import apply_to_sample
from harness import build_model, dictionary, label_smoothed, model_arguments, net_input, text_input, training_input
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"fp32": torch.float32, "autocast": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    """Of one call, the mean over ``rounds`` after three more."""
    for _ in range(3):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(rounds):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / rounds


def matmul_limit(dtype: torch.dtype) -> float:
    """Floating-point operations per millisecond of a square matmul."""
    a, b = (torch.randn(8192, 8192, device="cuda").to(dtype) for _ in range(2))
    return 2 * 8192**3 / milliseconds(lambda: a @ b, 10)


def moved(sample: Any, dtype: torch.dtype) -> Any:
    """A sample on the GPU, floating-point tensors in ``dtype``."""
    return apply_to_sample(lambda tensor: tensor.to("cuda", dtype if tensor.is_floating_point() else tensor.dtype), sample)


def training(modality: str, shape: tuple[int, ...], precision: str, args: argparse.Namespace, compiled: bool) -> Callable[[], Any]:
    """One step: forward, backward, optimizer (its master weights are not in it)."""
    vocabulary, dtype = dictionary(args.vocabulary), DTYPES[precision]
    model = build_model(args.arch, vocabulary, modalities=modality, compile=compiled).train().to("cuda", dtype)
    criterion = label_smoothed(vocabulary)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    group = text_input(vocabulary, shape[0], 8, 20, pad_from=20)
    group["media"] = training_input(model, modality, shape)
    group = moved(group, dtype)
    sample = {"net_input": net_input(model.forward, group), "target": group["prev_output_tokens"]}

    def step() -> None:
        context = torch.autocast("cuda", torch.bfloat16) if precision == "autocast" else contextlib.nullcontext()
        with context:
            loss, *_ = criterion(model, sample)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def generation(precision: str, args: argparse.Namespace, cuda_graphs: bool) -> Callable[[], Any]:
    """A beam search of 5 over 20 tokens."""
    from unival.generation.search import build_generator

    vocabulary, dtype = dictionary(args.vocabulary), DTYPES[precision]
    model = build_model(args.arch, vocabulary, modalities="image").to("cuda", dtype)
    options = argparse.Namespace(beam=5, min_len=20, max_len_b=20, cuda_graphs=cuda_graphs)
    generator = build_generator([model], vocabulary, options)
    group = text_input(vocabulary, args.batch, 8, 1)
    group["media"] = training_input(model, "image", (args.batch, 3, args.image_size, args.image_size))
    group = moved({key: value for key, value in group.items() if key != "prev_output_tokens"}, dtype)
    sample = {"net_input": net_input(model.forward, group)}

    @torch.no_grad()
    def search() -> Any:
        return generator.generate([model], sample, bos_token=vocabulary.bos())

    return search


def profile(work: Callable[[], Any], kernels: int) -> None:
    """Print the kernels that take most of the time of one call."""
    from torch.profiler import ProfilerActivity

    work()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        work()
        torch.cuda.synchronize()
    spent: dict[str, tuple[float, int]] = {}
    for event in found.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            before, count = spent.get(event.name, (0.0, 0))
            spent[event.name] = (before + event.time_range.elapsed_us() / 1000, count + 1)
    total = sum(time for time, _ in spent.values())
    print(f"    kernels: {total:.1f} ms in {sum(count for _, count in spent.values())} launches")
    for name, (time, count) in sorted(spent.items(), key=lambda item: -item[1][0])[:kernels]:
        print(f"    {time / total:5.1%} {time:8.2f} ms {count:5} x {name[:110]}")


def report(name: str, precision: str, build: Callable[[], Callable[[], Any]], items: int, args: argparse.Namespace, limit: float) -> None:
    """One line of the table."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        work = build()
        with FlopCounterMode(display=False) as counter:
            work()
        time = milliseconds(work, args.rounds)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        print(f"{name:42} {precision:9} {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        return
    share = counter.get_total_flops() / limit / time
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"{name:42} {precision:9} {time:9.1f} ms {items / time * 1000:9.1f} rows/s {share:7.1%} {memory:7.1f} GiB", flush=True)
    if args.profile:
        profile(work, args.profile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="steps of each figure (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the figures whose names contain this")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="print the N kernels that take most time")
    parser.add_argument("--batch", type=int, default=32, help="images (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=DTYPES)
    args = model_arguments(parser).parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU: benchmarks/model.py and benchmarks/generation.py measure on the CPU")
    torch.backends.cuda.matmul.allow_tf32 = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.arch}")
    print(f"{'':42} {'':9} {'time':>12} {'':16} {'share':>7} {'memory':>11}")
    limits = {name: matmul_limit(torch.bfloat16 if name == "autocast" else dtype) for name, dtype in DTYPES.items()}
    shapes = {
        f"caption, batch {args.batch}, {args.image_size} px": ("image", (args.batch, 3, args.image_size, args.image_size)),
        "video, batch 8, 8 x 224 px": ("video", (8, 3, 8, 224, 224)),
        "audio, batch 8, 10 s": ("audio", (8, 480000)),
    }
    for precision in args.precisions:
        for (name, (modality, shape)), compiled in itertools.product(shapes.items(), (False, True)):
            name = f"compiled {name}" if compiled else name
            if args.only in name:
                work = partial(training, modality, shape, precision, args, compiled)
                report(name, precision, work, shape[0], args, limits[precision])
        for graphs, name in enumerate((f"beam 5, 20 tokens, batch {args.batch}", f"beam 5, CUDA graphs, batch {args.batch}")):
            if args.only in name and precision != "autocast":
                work = partial(generation, precision, args, bool(graphs))
                report(name, precision, work, args.batch, args, limits[precision])


if __name__ == "__main__":
    main()
