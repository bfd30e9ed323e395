"""Times torch's scaled_dot_product_attention."""


def attention(torch, of, l2_bytes):
    heads, kv_heads, dim = of["heads"], of["kv_heads"], of["head_dim"]
    batch, queries, positions = of["requests"], of["queries"], of["positions"]
    copies = copies_of(torch, 2 * batch * dim * (2 * heads * queries + 2 * kv_heads * positions), l2_bytes)

    def random(heads, length):
        return torch.rand(batch, heads, length, dim, device="cuda", dtype=torch.bfloat16) * 2 - 1

    inputs = [(random(heads, queries), random(kv_heads, positions), random(kv_heads, positions)) for _ in range(copies)]
    options = {"is_causal": queries > 1}
    if heads != kv_heads:
        options["enable_gqa"] = True

    def launch(index):
        torch.nn.functional.scaled_dot_product_attention(*inputs[index % copies], **options)

    return {**launch_times(torch, launch, copies), "backend": implementation(torch, inputs[0], options)}


def implementation(torch, inputs, options):
    """Which one torch takes, where it tells."""
    try:
        number = torch._fused_sdp_choice(*inputs, None, 0.0, options["is_causal"], enable_gqa=options.get("enable_gqa", False))
        return {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}.get(number, str(number))
    except Exception:
        return None
