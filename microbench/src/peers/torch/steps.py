"""Times decode steps of a plain PyTorch decoder, and a matrix multiplication in Triton.

Reads {"device": ordinal, "seconds": limit, "l2_bytes": n, "tasks": [...]} from standard input. The first lines of the answer say
what torch and what Triton this is, each line after them is about one task: its times in µs, or why there are none.
"""

import json
import math
import os
import sys
import tempfile
import time


def say(**what):
    print(json.dumps(what), flush=True)


def decoder(torch, of):
    """A stack of decoder layers as Llama's, with random weights and a KV cache that is full but for the last position."""
    functional = torch.nn.functional
    hidden, heads, kv_heads, dim = of["hidden"], of["heads"], of["kv_heads"], of["head_dim"]
    batch, positions = of["batch"], of["positions"]
    widths = [heads * dim, kv_heads * dim, kv_heads * dim]

    def random(*shape, scale=1.0):
        return (torch.rand(*shape, device="cuda", dtype=torch.bfloat16) * 2 - 1) * scale

    def weight(rows, columns):
        return random(rows, columns, scale=columns**-0.5)

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            buffers = {
                "qkv": weight(sum(widths), hidden),
                "o": weight(hidden, widths[0]),
                "gate_up": weight(2 * of["intermediate"], hidden),
                "down": weight(hidden, of["intermediate"]),
                "norm": random(hidden),
                "second_norm": random(hidden),
                "keys": random(batch, kv_heads, positions, dim),
                "values": random(batch, kv_heads, positions, dim),
            }
            for name, value in buffers.items():
                self.register_buffer(name, value)

        def rotate(self, x, cos, sin):
            a, b = x.chunk(2, -1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

        def forward(self, x, cos, sin):
            y = functional.rms_norm(x, (hidden,), self.norm, 1e-6)
            q, k, v = functional.linear(y, self.qkv).split(widths, -1)
            q = self.rotate(q.view(batch, heads, 1, dim), cos, sin)
            k = self.rotate(k.view(batch, kv_heads, 1, dim), cos, sin)
            self.keys[:, :, positions - 1 : positions] = k
            self.values[:, :, positions - 1 : positions] = v.view(batch, kv_heads, 1, dim)
            options = {"enable_gqa": True} if heads != kv_heads else {}
            y = functional.scaled_dot_product_attention(q, self.keys, self.values, **options)
            x = x + functional.linear(y.reshape(batch, widths[0]), self.o)
            y = functional.rms_norm(x, (hidden,), self.second_norm, 1e-6)
            gate, up = functional.linear(y, self.gate_up).chunk(2, -1)
            return x + functional.linear(functional.silu(gate) * up, self.down)

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([Layer() for _ in range(of["layers"])])
            self.register_buffer("embedding", random(of["vocab"], hidden))
            self.register_buffer("norm", random(hidden))
            self.register_buffer("head", weight(of["vocab"], hidden))
            angles = (positions - 1) * 10000.0 ** (-torch.arange(dim // 2, device="cuda") * 2.0 / dim)
            self.register_buffer("cos", torch.cos(angles).to(torch.bfloat16))
            self.register_buffer("sin", torch.sin(angles).to(torch.bfloat16))

        def forward(self, ids):
            x = functional.embedding(ids, self.embedding)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            x = functional.rms_norm(x, (hidden,), self.norm, 1e-6)
            return functional.linear(x, self.head).argmax(-1)

    return Decoder()


def decode_step(torch, of, l2_bytes):
    model = decoder(torch, of)
    # Graphs of what does not change its shape: what people use for decode.
    step = torch.compile(model, mode="reduce-overhead") if of["compiled"] else model
    ids = torch.zeros(of["batch"], device="cuda", dtype=torch.int64)

    def timed():
        torch.cuda.synchronize()
        start = time.perf_counter()
        step(ids)
        torch.cuda.synchronize()
        return 1e6 * (time.perf_counter() - start)

    # The first ones compile, record graphs and choose algorithms.
    for _ in range(5):
        estimate = timed()
    rounds = min(max(10, int(300_000 / max(1.0, estimate))), 100)
    return {"us": [timed() for _ in range(rounds)], "timer": "wall", "backend": "compiled" if of["compiled"] else "eager"}


# Triton compiles functions from their source, which must lie in a file.
TRITON = '''
import triton
import triton.language as tl


@triton.autotune(
    configs=[
        triton.Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, num_warps=warps, num_stages=stages)
        for m, n, k, warps, stages in [
            (16, 32, 128, 4, 4), (16, 64, 128, 4, 4), (16, 128, 64, 4, 4), (32, 64, 128, 4, 4), (64, 64, 64, 4, 4),
            (64, 128, 64, 4, 4), (128, 64, 64, 4, 4), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (256, 128, 64, 8, 3),
        ]
    ],
    key=["M", "N", "K"],
)
@triton.jit
def product(x, weight, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    # Eight rows of blocks at a time, so that they find each other's weights in L2.
    group = 8
    block = tl.program_id(0)
    rows, columns = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = block // (group * columns) * group
    size = min(rows - first, group)
    row = first + block % (group * columns) % size
    column = block % (group * columns) // size
    m = (row * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    n = (column * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    k = tl.arange(0, BLOCK_K)
    xs = x + m[:, None] * K + k[None, :]
    weights = weight + n[None, :] * K + k[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for i in range(0, tl.cdiv(K, BLOCK_K)):
        left = K - i * BLOCK_K
        a = tl.load(xs, mask=k[None, :] < left, other=0.0)
        b = tl.load(weights, mask=k[:, None] < left, other=0.0)
        sums = tl.dot(a, b, sums)
        xs += BLOCK_K
        weights += BLOCK_K
    m = row * BLOCK_M + tl.arange(0, BLOCK_M)
    n = column * BLOCK_N + tl.arange(0, BLOCK_N)
    tl.store(out + m[:, None] * N + n[None, :], sums.to(tl.bfloat16), mask=(m[:, None] < M) & (n[None, :] < N))
'''


def triton_kernel():
    """The kernel, out of a file in a folder that goes with the process."""
    if not hasattr(triton_kernel, "module"):
        import importlib.util

        triton_kernel.folder = tempfile.TemporaryDirectory()
        path = os.path.join(triton_kernel.folder.name, "product.py")
        with open(path, "w") as file:
            file.write(TRITON)
        spec = importlib.util.spec_from_file_location("product", path)
        triton_kernel.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(triton_kernel.module)
    return triton_kernel.module.product


def triton_product(torch, of, l2_bytes):
    kernel = triton_kernel()
    m, n, k = of["m"], of["n"], of["k"]
    size = 2 * (m * k + n * k + m * n)
    copies = 1 if size >= 5 * l2_bytes else math.ceil(5 * l2_bytes / size) + 1
    free, _ = torch.cuda.mem_get_info()
    copies = max(1, min(copies, 1024, free // 2 // size))

    def random(*shape):
        return torch.rand(*shape, device="cuda", dtype=torch.bfloat16) * 2 - 1

    inputs = [(random(m, k), random(n, k), random(m, n)) for _ in range(copies)]

    def grid(meta):
        return (math.ceil(m / meta["BLOCK_M"]) * math.ceil(n / meta["BLOCK_N"]),)

    def launch(index):
        x, weight, out = inputs[index % copies]
        kernel[grid](x, weight, out, m, n, k)

    launch(0)
    torch.cuda.synchronize()
    x, weight, out = inputs[0]
    expected = torch.nn.functional.linear(x, weight)
    if not torch.allclose(out, expected, rtol=0.05, atol=0.05 * k**0.5):
        raise RuntimeError("its results differ from torch's")

    def capture(launches):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for index in range(launches):
                launch(index)
        return graph

    def replay(graph, rounds):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
        graph.replay()
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        torch.cuda.synchronize()
        return [1000 * a.elapsed_time(b) for a, b in zip(events, events[1:])]

    launch_us = replay(capture(copies), 1)[0] / copies
    needed = min(max(1, math.ceil(1000 / max(launch_us, 0.1))), 1024)
    launches = math.ceil(needed / copies) * copies
    times = replay(capture(launches), 30)
    return {"us": [t / launches for t in times], "launches": launches}


def main():
    asked = json.load(sys.stdin)
    deadline = time.monotonic() + asked["seconds"]
    try:
        import torch
    except Exception as error:
        return say(missing=f"this Python ({sys.executable}) cannot import torch: {error}")
    try:
        if not torch.cuda.is_available():
            return say(missing=f"torch {torch.__version__} finds no GPU that it can use")
        torch.cuda.set_device(asked["device"])
        torch.manual_seed(1)
        say(torch=torch.__version__, device=torch.cuda.get_device_name())
    except Exception as error:
        return say(missing=f"torch cannot use the GPU: {error}")
    try:
        import triton

        say(triton=triton.__version__)
        without_triton = None
    except Exception as error:
        without_triton = f"this Python cannot import triton: {error}"
    for task in asked["tasks"]:
        if time.monotonic() > deadline:
            say(id=task["id"], error="no time is left")
            continue
        needs_triton = task["task"] == "triton_product" or task.get("compiled", False)
        if needs_triton and without_triton:
            say(id=task["id"], error=without_triton)
            continue
        do = {"decode_step": decode_step, "triton_product": triton_product}[task["task"]]
        try:
            with torch.no_grad():
                say(id=task["id"], **do(torch, task, asked["l2_bytes"]))
        except Exception as error:
            say(id=task["id"], error=" ".join(f"{type(error).__name__}: {error}".split()))
        torch.cuda.empty_cache()


main()
