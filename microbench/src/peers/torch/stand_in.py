# What the script uses of torch and Triton, with shapes and without numbers. Wrong shapes raise, as torch's own would.
import contextlib, math, sys, types


class Tensor:
    def __init__(self, *shape, **of):
        self.shape = list(shape)

    def joined(self, other):
        shape = getattr(other, "shape", [])
        longest = max(len(self.shape), len(shape))
        sides = [[1] * (longest - len(s)) + s for s in (self.shape, shape)]
        for a, b in zip(*sides):
            assert a == b or 1 in (a, b), (self.shape, shape)
        return Tensor(*(max(pair) for pair in zip(*sides)))

    __add__ = __sub__ = __mul__ = __rmul__ = __truediv__ = __rpow__ = joined

    def __neg__(self):
        return self

    def to(self, dtype):
        return self

    def split(self, sizes, dim):
        assert dim == -1 and sum(sizes) == self.shape[-1], (sizes, self.shape)
        return [Tensor(*self.shape[:-1], size) for size in sizes]

    def chunk(self, count, dim):
        assert self.shape[-1] % count == 0
        return self.split([self.shape[-1] // count] * count, dim)

    def view(self, *shape):
        assert math.prod(shape) == math.prod(self.shape), (shape, self.shape)
        return Tensor(*shape)

    reshape = view

    def __setitem__(self, at, value):
        everything, _, positions = at
        assert 0 <= positions.start < positions.stop <= self.shape[2], (positions, self.shape)
        assert value.shape == [*self.shape[:2], positions.stop - positions.start, self.shape[3]], (value.shape, self.shape)

    def argmax(self, dim):
        return Tensor(*self.shape[:-1])


def linear(x, weight):
    assert x.shape[-1] == weight.shape[1], (x.shape, weight.shape)
    return Tensor(*x.shape[:-1], weight.shape[0])


def rms_norm(x, shape, weight, epsilon):
    assert list(shape) == x.shape[-1:] == weight.shape
    return x


def attend(q, k, v, is_causal=False, enable_gqa=False):
    assert k.shape == v.shape and q.shape[::3] == k.shape[::3], (q.shape, k.shape)
    assert enable_gqa == (q.shape[1] != k.shape[1]) and is_causal == (q.shape[2] > 1)
    if q.shape[3] == 80:
        raise RuntimeError("No available kernel.\nAborting execution.")
    return q


def cat(parts, dim):
    return Tensor(*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))


class Module:
    def register_buffer(self, name, value):
        setattr(self, name, value)

    def __call__(self, *arguments):
        return self.forward(*arguments)


class Stream:
    def wait_stream(self, other):
        pass


class Graph:
    def replay(self):
        clock[0] += 2.0


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = clock[0]

    def elapsed_time(self, end):
        return end.time - self.time


def compiled(model, mode):
    assert mode == "reduce-overhead"
    return lambda *arguments: model(*arguments)


clock = [0.0]
within = lambda *arguments: contextlib.nullcontext()
torch = types.ModuleType("torch")
torch.__version__, torch.bfloat16, torch.int64 = "2.11.0", "bfloat16", "int64"
torch.rand = torch.zeros = Tensor
torch.arange = lambda count, device: Tensor(count)
torch.cos = torch.sin = lambda x: x
torch.cat, torch.compile, torch.no_grad, torch.manual_seed = cat, compiled, within, lambda seed: None
torch._fused_sdp_choice = lambda q, k, v, mask, dropout, causal, enable_gqa: 1
torch.allclose = lambda a, b, rtol, atol: a.shape == b.shape
torch.nn = types.SimpleNamespace(
    Module=Module, ModuleList=list,
    functional=types.SimpleNamespace(
        linear=linear, rms_norm=rms_norm, silu=lambda x: x, scaled_dot_product_attention=attend,
        embedding=lambda ids, table: Tensor(*ids.shape, table.shape[1])))
torch.cuda = types.SimpleNamespace(
    is_available=lambda: True, set_device=lambda device: None, get_device_name=lambda: "a GPU", empty_cache=lambda: None,
    mem_get_info=lambda: (8 << 30, 80 << 30), synchronize=lambda: None, current_stream=Stream, Stream=Stream, stream=within,
    graph=within, CUDAGraph=Graph, Event=Event)
sys.modules["torch"] = torch


class Jitted:
    def __init__(self, function):
        self.function = function

    def __getitem__(self, grid):
        assert grid({"BLOCK_M": 16, "BLOCK_N": 32})[0] > 0
        return lambda x, weight, out, m, n, k: None


if "WITHOUT_TRITON" not in globals():
    triton, language = types.ModuleType("triton"), types.ModuleType("triton.language")
    triton.__version__, triton.language, triton.jit = "3.6.0", language, Jitted
    triton.Config = lambda sizes, num_warps, num_stages: None
    triton.autotune = lambda configs, key: lambda kernel: kernel
    language.constexpr = int
    sys.modules["triton"], sys.modules["triton.language"] = triton, language
else:
    sys.modules["triton"] = None
