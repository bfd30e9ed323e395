"""Times decode steps of a plain PyTorch decoder, by the host from one synchronisation to the next."""

import time


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
