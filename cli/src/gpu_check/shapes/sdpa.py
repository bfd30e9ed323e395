"""Times torch's scaled_dot_product_attention.

Reads {"device": ordinal, "seconds": limit, "l2_bytes": n, "shapes": [...]} from standard input. The first line of the answer says
what torch this is, each line after it is about one shape: its times in µs, or why there are none.
"""

import json
import math
import sys
import time


def say(**what):
    print(json.dumps(what), flush=True)


def measure(torch, shape, l2_bytes):
    heads, kv_heads, dim = shape["heads"], shape["kv_heads"], shape["head_dim"]
    batch, queries, positions = shape["requests"], shape["queries"], shape["positions"]
    causal = queries > 1
    sets = 2 * batch * dim * (2 * heads * queries + 2 * kv_heads * positions)
    copies = 1 if sets >= 5 * l2_bytes else math.ceil(5 * l2_bytes / sets) + 1
    free, _ = torch.cuda.mem_get_info()
    copies = max(1, min(copies, 1024, free // 2 // sets))

    def random(heads, length):
        return torch.rand(batch, heads, length, dim, device="cuda", dtype=torch.bfloat16) * 2 - 1

    inputs = [(random(heads, queries), random(kv_heads, positions), random(kv_heads, positions)) for _ in range(copies)]
    options = {"is_causal": causal}
    if heads != kv_heads:
        options["enable_gqa"] = True

    def attend(index):
        q, k, v = inputs[index % copies]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    def capture(launches):
        # As torch's documentation has it: a few calls on another stream, then the capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for index in range(3):
                attend(index)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for index in range(launches):
                attend(index)
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
    rounds = min(max(5, int(200_000 / max(1.0, launches * launch_us))), 30)
    times = replay(capture(launches), rounds)
    return {"us": [t / launches for t in times], "launches": launches, "copies": copies, "backend": backend(torch, inputs[0], options)}


def backend(torch, inputs, options):
    """Which implementation torch takes, where it tells."""
    try:
        number = torch._fused_sdp_choice(*inputs, None, 0.0, options["is_causal"], enable_gqa=options.get("enable_gqa", False))
        return {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}.get(number, str(number))
    except Exception:
        return None


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
    for shape in asked["shapes"]:
        if time.monotonic() > deadline:
            say(id=shape["id"], error="no time is left")
            continue
        try:
            with torch.no_grad():
                say(id=shape["id"], **measure(torch, shape, asked["l2_bytes"]))
        except Exception as error:
            say(id=shape["id"], error=" ".join(f"{type(error).__name__}: {error}".split()))
        torch.cuda.empty_cache()


main()
