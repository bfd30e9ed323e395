// Each request of a decode batch gets a position more: where its new token lies is written to what the step's other kernels read.
//
// Shapes: kv_len, new_pages, positions, slots [requests]; page_table [requests, max_pages].
//
//   position = kv_len[r]                          a thread per request
//   page     = position / page_size               at the first slot of a page: new_pages[r], which is put into the table
//   slot     = page_table[r][page] * page_size + position % page_size
//   kv_len[r] = position + 1
//
// What bounds it: latency. It stands for the copies of five arrays from the host: only new_pages comes from there, and only when a
// request needs a page.
//
// Arrays of requests are read and written side by side. Entries of the page table are not, and cannot be: each is in its request's row,
// so that an access to them takes a sector for each request (unless rows are shorter than a sector).
#include "prelude.cuh"

__global__ void __launch_bounds__(128)
    advance(int *__restrict__ kv_len, int *__restrict__ page_table, const int *__restrict__ new_pages, int *__restrict__ positions,
            int *__restrict__ slots, u32 requests, u32 max_pages, u32 page_size) {
    u32 r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= requests) return;
    u32 position = (u32)kv_len[r], page = position / page_size, in_page = position - page * page_size;
    int *entry = page_table + (u64)r * max_pages + page;
    int at;
    if (in_page == 0) {
        at = new_pages[r];
        *entry = at;
    } else {
        at = *entry;
    }
    positions[r] = (int)position;
    slots[r] = at * (int)page_size + (int)in_page;
    kv_len[r] = (int)position + 1;
}
