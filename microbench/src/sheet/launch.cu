// What is launched to see what a launch takes, and the step of the GPU's timer.
#include "prelude.cuh"

extern "C" __global__ void empty() {}

// Writes the first `count` values that %globaltimer takes, one after another, and gives up after `most` looks. The rest stays.
extern "C" __global__ void timer_steps(u64 *values, u32 count, u32 most) {
    u64 last = globaltimer();
    u32 found = 0;
    for (u32 look = 0; look < most && found < count; look++) {
        u64 now = globaltimer();
        if (now != last) values[found++] = now;
        last = now;
    }
}
