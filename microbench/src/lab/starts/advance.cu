// A thread has a request.
extern "C" __global__ void my_advance(int *kv_len, int *page_table, const int *new_pages, int *positions, int *slots, unsigned requests,
                                      unsigned max_pages, unsigned page_size) {
    unsigned r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= requests) return;
    unsigned position = kv_len[r];
    int *page = page_table + (u64)r * max_pages + position / page_size;
    if (position % page_size == 0) *page = new_pages[r];
    positions[r] = position;
    slots[r] = *page * (int)page_size + (int)(position % page_size);
    kv_len[r] = position + 1;
}
