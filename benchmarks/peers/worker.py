# torch beside ours: worker.py NAME BATCH VARIANT answers requests for runs on stdin; worker.py NAME BATCH --probe
# VARIANT,... [--onnx FILE] prints the time of each variant, exports the network and ends. Threads, allocator and
# instruction set come from the environment.
import json
import os
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

import nets
import tokens

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)


def image(batch, channels, side):
    return torch.randn(batch, channels, side, side)


def ids(batch, value):
    return torch.full((batch,), value)


UNETS = {
    "cifar_unet": (32, lambda: nets.UNet(32, 128, (1, 2, 2, 2), 2, (16,))),
    "adm64_unet": (64, lambda: nets.UNet(64, 128, (1, 2, 3, 4), 2, (32, 16, 8), 6, modern=True)),
    "small64_unet": (64, lambda: nets.UNet(64, 64, (1, 2, 3, 4), 1, (16, 8), modern=True)),
}
DITS = {"dit_s2": (384, 6), "dit_b2": (768, 12)}


def network(name, batch):
    """A module and its inputs."""
    kind, *sizes = name.split("_")
    numbers = [int(size) for size in sizes if size.isdigit()]
    if name in UNETS:
        side, make = UNETS[name]
        return make(), (image(batch, 3, side), ids(batch, 37))
    if name in DITS:
        return nets.Dit(*DITS[name]), (image(batch, 4, 32), ids(batch, 37), ids(batch, 3))
    if name == "vqgan_f16_enc":
        return nets.vqgan_encoder(), (image(batch, 3, 256),)
    if name == "vqgan_f16_dec":
        return nets.vqgan_decoder(), (image(batch, 256, 16),)
    if name == "vqd_small":
        return nets.Vqd(), (torch.randint(0, 2886, (batch, 1024)), torch.randn(batch, 77, 512), ids(batch, 37))
    if kind == "conv":
        return nets.conv(numbers[0], numbers[1]), (image(batch, numbers[0], numbers[2]),)
    if kind == "gnsilu":
        return nn.Sequential(nets.norm(numbers[0]), nn.SiLU()), (image(batch, *numbers),)
    if kind == "matmul":
        return nn.Linear(numbers[2], numbers[1], bias=False), (torch.randn(numbers[0], numbers[2]),)
    raise SystemExit(f"worker.py: expected a known workload, got {name}")


def channels_last(x):
    return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x


def prepared(name, batch, variant):
    """The network of a variant: eager, opt (traced, frozen, optimize_for_inference), each also with channels last (cl)."""
    model, inputs = network(name, batch)
    model.eval()
    parts = variant.split("+")
    if "cl" in parts:
        model = model.to(memory_format=torch.channels_last)
        inputs = tuple(channels_last(x) for x in inputs)
    if "opt" in parts:
        with torch.no_grad():
            model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, inputs, check_trace=False)))
    return model, inputs


def forward(name, batch, variant):
    model, inputs = prepared(name, batch, variant)

    def run():
        with torch.inference_mode():
            model(*inputs)

    return run


def training(name, batch, variant):
    model, inputs = network(name, batch)
    if "cl" in variant.split("+"):
        model = model.to(memory_format=torch.channels_last)
        inputs = tuple(channels_last(x) for x in inputs)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    with torch.no_grad():
        target = torch.randn_like(model(*inputs))

    def run():
        optimiser.zero_grad(set_to_none=True)
        F.mse_loss(model(*inputs), target).backward()
        optimiser.step()

    return run


def without_gradients(function):
    def run():
        with torch.inference_mode():
            function()

    return run


def runner(name, batch, variant):
    if name.startswith("train_"):
        return training(name[len("train_"):], batch, variant)
    if name.startswith("codebook_"):
        return without_gradients(tokens.nearest_codes(variant, *(int(n) for n in name.split("_")[1:])))
    if name.startswith("mask_replace_"):
        return without_gradients(getattr(tokens.Step(int(name.split("_")[2]), batch), variant))
    return forward(name, batch, variant)


def timed(run):
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def burst(run, seconds):
    """Times of runs for about that long; the first, which finds cold caches, counts only when there is no other."""
    start = time.perf_counter()
    times = [timed(run)]
    if times[0][0] < 1e3 * seconds / 3:
        times = []
        while time.perf_counter() - start < seconds:
            times.append(timed(run))
    return {"wall": [t[0] for t in times], "cpu": [t[1] for t in times]}


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def count_gflop(name, batch):
    """2 x multiply-adds of convolutions and matrix products, by torch's own count of operations."""
    from torch.profiler import profile

    model, inputs = network(name, batch)
    with torch.no_grad(), profile(with_flops=True) as record:
        model.eval()(*inputs)
    wanted = ("conv2d", "mm", "addmm", "bmm", "baddbmm", "matmul", "linear")
    names = {"aten::" + n for n in wanted}
    return sum(event.flops for event in record.key_averages() if event.key in names) / 1e9


def say(value):
    print(json.dumps(value), flush=True)


def export(name, batch, path):
    model, inputs = network(name, batch)
    order = ["x", "y", "z"][: len(inputs)]
    torch.onnx.export(model.eval(), inputs, path + ".part", opset_version=17, input_names=order, output_names=["out"])
    os.replace(path + ".part", path)


def probe(name, batch, variants, onnx):
    if onnx and not os.path.exists(onnx):
        export(name, batch, onnx)
    times = {}
    for variant in variants:
        try:
            run = runner(name, batch, variant)
            first = timed(run)[0]
            timed(run)  # the traced forms compile in their first two runs
            times[variant] = min(timed(run)[0] for _ in range(1 if first > 500 else 5))
        except RuntimeError as error:
            print(f"worker.py: {name} {variant}: {error}", file=sys.stderr)
    say(times)


def serve(name, batch, variant):
    run = runner(name, batch, variant)
    run()
    say({"ready": True, "version": "torch " + torch.__version__})
    for line in sys.stdin:
        seconds = float(line)
        say({**burst(run, seconds), "peak_mb": peak_mb()})


def main():
    name, batch, *rest = sys.argv[1:]
    if rest[0] == "--flops":
        say(count_gflop(name, int(batch)))
    elif rest[0] == "--probe":
        variants = [variant for variant in rest[1].split(",") if variant]
        probe(name, int(batch), variants, rest[3] if len(rest) > 3 else "")
    else:
        serve(name, int(batch), rest[0])


main()
