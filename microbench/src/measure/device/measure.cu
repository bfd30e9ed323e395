// What lies around a launch that is timed. All of it runs in the stream of the launch, in order:
//
//   hold_stream | read_clocks | start event | the launch | end event | read_clocks
//
// The host puts everything into the stream while hold_stream holds it, and only then lets go: from there on the device never waits
// for the host, so the time between the events holds no cost of launching (the "blocking kernel" of NVBench).

typedef unsigned int u32;
typedef unsigned long long u64;

// The device's clock in nanoseconds, which is the same on all multiprocessors. Its step is not documented.
__device__ __forceinline__ u64 global_timer() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

__device__ __forceinline__ u32 multiprocessor() {
    u32 id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}

// One thread spins until the host has let go of `ticket`: words[0] is the last ticket it let go of. After `timeout_ns` it goes on
// all the same and says so in words[1], so that nothing hangs for ever where a launch waits for the device (it loads a module, or
// synchronises) while the device waits here.
extern "C" __global__ void hold_stream(volatile u32 *words, u32 ticket, u64 timeout_ns) {
    u64 begin = global_timer();
    while ((int)(words[0] - ticket) < 0) {
        if (global_timer() - begin > timeout_ns) {
            words[1] = ticket;
            __threadfence_system();
            return;
        }
    }
}

// As many blocks of one thread as there are multiprocessors; the one on multiprocessor 0 reads both of its clocks into
// out = {nanoseconds, cycles}. It reads them where the global timer steps, so that its step does not blur the clock of a launch of a
// few microseconds; a timer that does not step within the limit is read as it is.
extern "C" __global__ void read_clocks(ulonglong2 *out) {
    if (multiprocessor() != 0) return;
    u64 before = global_timer();
    u64 time = before;
    for (int reads = 0; reads < 4096 && time == before; ++reads) time = global_timer();
    *out = make_ulonglong2(time, (u64)clock64());
}
