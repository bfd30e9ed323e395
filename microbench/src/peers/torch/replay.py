"""What the scripts of this folder share: how they answer, and how they time launches on the GPU. It stands before them."""

import json
import math


def say(**what):
    print(json.dumps(what), flush=True)


def copies_of(torch, size, l2_bytes):
    """Copies of inputs of `size` bytes that together outgrow the L2 cache five times, in half of the free memory at most."""
    copies = 1 if size >= 5 * l2_bytes else math.ceil(5 * l2_bytes / size) + 1
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(copies, 1024, free // 2 // size))


def capture(torch, launch, launches):
    """A graph of so many launches."""
    # As torch's documentation has it: a few calls on another stream, then the capture.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for index in range(3):
            launch(index)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(launches):
            launch(index)
    return graph


def replay(torch, graph, rounds):
    """The times between the events around each replay, µs. One replay goes before them."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    graph.replay()
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return [1000 * a.elapsed_time(b) for a, b in zip(events, events[1:])]


def launch_times(torch, launch, copies):
    """Times `launch(index)`, which takes copy `index % copies` of its inputs: graphs of about a millisecond, in whole rounds over the
    copies, replayed 5 to 30 times within 0.2 s."""
    launch_us = replay(torch, capture(torch, launch, copies), 1)[0] / copies
    needed = min(max(1, math.ceil(1000 / max(launch_us, 0.1))), 1024)
    launches = math.ceil(needed / copies) * copies
    rounds = min(max(5, int(200_000 / max(1.0, launches * launch_us))), 30)
    times = replay(torch, capture(torch, launch, launches), rounds)
    return {"us": [t / launches for t in times], "launches": launches, "copies": copies}
