/* A pretend libcuda.so.1: memory is host memory, copies are done at once, kernels are noted down and not run.
 *
 * The tests load a copy of the library each, so that each has a state of its own:
 *   pretend_fail(name, n, code)  the n-th call of `name` from now on (1 = the next) answers `code`
 *   pretend_calls(name)          how often `name` was called
 *   pretend_launches()           one line per launch: kernel, grid, block, shared bytes, attributes, parameters in hex
 *   pretend_live()               handles and allocations that are not destroyed
 *
 * A module's image is text: "name:8,4,4;other:8", kernels with the bytes of their parameters.
 * -DVERSION=12040 is the driver's version, -DDEVICES=2 the number of devices, -DWITHOUT_LATER leaves out what came late.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 13000
#endif
#ifndef DEVICES
#define DEVICES 2
#endif

typedef int result;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_FOUND = 500,
       PEER_ALREADY_ENABLED = 704, CAPTURE_UNSUPPORTED = 900 };

static struct { char name[64]; int calls, fail_at, code; } functions[128];
static int live;
static char launches[1 << 16];
static size_t memory_used;
static const size_t MEMORY = (size_t)80 << 30;
static __thread void *current;

static int slot(const char *name) {
    int i = 0;
    while (functions[i].name[0] && strcmp(functions[i].name, name)) i++;
    strncpy(functions[i].name, name, 63);
    return i;
}

/* Counts the call, and answers what the test asked for. */
static result enter(const char *name) {
    int i = slot(name);
    functions[i].calls++;
    if (functions[i].fail_at > 0 && --functions[i].fail_at == 0) return functions[i].code;
    return SUCCESS;
}
#define ENTER do { result r = enter(__func__); if (r) return r; } while (0)
#define NEED_CONTEXT do { if (!current) return INVALID_CONTEXT; } while (0)

void pretend_fail(const char *name, int n, int code) { int i = slot(name); functions[i].fail_at = n; functions[i].code = code; }
int pretend_calls(const char *name) { return functions[slot(name)].calls; }
const char *pretend_launches(void) { return launches; }
int pretend_live(void) { return live; }

struct kernel { char name[64]; size_t bytes[16]; int count, dynamic_shared; };
struct module { struct kernel kernels[8]; int count; };
struct graph { char text[1 << 14]; int nodes, copies; };
struct stream { struct graph *capture; int failed; };
struct event { int time; };
static int ticks;

static void note(struct stream *s, const char *format, ...) {
    char line[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (s && s->capture) { strcat(s->capture->text, line); s->capture->nodes++; }
    else strcat(launches, line);
}

result cuInit(unsigned flags) { ENTER; return DEVICES ? SUCCESS : NO_DEVICE; }
result cuDriverGetVersion(int *version) { ENTER; *version = VERSION; return SUCCESS; }
result cuDeviceGetCount(int *count) { ENTER; *count = DEVICES; return SUCCESS; }
result cuDeviceGet(int *device, int ordinal) { ENTER; *device = ordinal; return SUCCESS; }
result cuDeviceGetName(char *name, int length, int device) { ENTER; snprintf(name, length, "Pretend GPU %d", device); return SUCCESS; }
result cuDeviceGetUuid_v2(unsigned char *uuid, int device) { ENTER; for (int i = 0; i < 16; i++) uuid[i] = i * 16 + device; return SUCCESS; }
result cuDeviceTotalMem_v2(size_t *bytes, int device) { ENTER; *bytes = MEMORY; return SUCCESS; }
result cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER;
    switch (attribute) {
        case 75: *value = 9; break;        /* compute capability */
        case 76: *value = 0; break;
        case 16: *value = 132; break;      /* multiprocessors */
        case 8: *value = 49152; break;     /* shared memory per block */
        case 97: *value = 232448; break;   /* opted in */
        case 13: *value = 1980000; break;  /* clock */
        default: *value = 1024;
    }
    return SUCCESS;
}
result cuDevicePrimaryCtxRetain(void **context, int device) { ENTER; live++; *context = (void *)(intptr_t)(0x1000 + device); return SUCCESS; }
result cuDevicePrimaryCtxRelease_v2(int device) { ENTER; live--; return SUCCESS; }
result cuCtxSetCurrent(void *context) { ENTER; current = context; return SUCCESS; }
result cuCtxSynchronize(void) { ENTER; NEED_CONTEXT; return SUCCESS; }
result cuCtxGetStreamPriorityRange(int *least, int *greatest) { ENTER; NEED_CONTEXT; *least = 0; *greatest = -5; return SUCCESS; }
static int peers;
result cuCtxEnablePeerAccess(void *peer, unsigned flags) { ENTER; NEED_CONTEXT; return peers++ ? PEER_ALREADY_ENABLED : SUCCESS; }
result cuDeviceCanAccessPeer(int *can, int device, int peer) { ENTER; *can = device != peer; return SUCCESS; }

/* In front of each allocation lies its size. */
static result allocate(uint64_t *address, size_t bytes) {
    NEED_CONTEXT;
    if (bytes > MEMORY - memory_used || bytes > (size_t)1 << 32) return OUT_OF_MEMORY;
    size_t *memory = malloc(bytes + 256);
    size_t base = ((size_t)memory + 256) & ~(size_t)255;
    ((size_t *)base)[-1] = bytes;
    ((size_t **)base)[-2] = memory;
    memory_used += bytes;
    live++;
    *address = base;
    return SUCCESS;
}
static result release(uint64_t address) {
    NEED_CONTEXT;
    memory_used -= ((size_t *)address)[-1];
    live--;
    free(((void **)address)[-2]);
    return SUCCESS;
}
result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { ENTER; NEED_CONTEXT; *free_bytes = MEMORY - memory_used; *total = MEMORY; return SUCCESS; }
result cuMemAlloc_v2(uint64_t *address, size_t bytes) { ENTER; return allocate(address, bytes); }
result cuMemFree_v2(uint64_t address) { ENTER; return release(address); }
result cuMemAllocAsync(uint64_t *address, size_t bytes, struct stream *s) { ENTER; return allocate(address, bytes); }
result cuMemFreeAsync(uint64_t address, struct stream *s) { ENTER; return release(address); }
static unsigned host_flags;
unsigned pretend_host_flags(void) { return host_flags; }
result cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
    ENTER; NEED_CONTEXT;
    host_flags = flags;
    *memory = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);
    memset(*memory, 0xA5, bytes);
    live++;
    return SUCCESS;
}
result cuMemFreeHost(void *memory) { ENTER; NEED_CONTEXT; free(memory); live--; return SUCCESS; }

static result copy(struct stream *s, void *to, const void *from, size_t bytes) {
    NEED_CONTEXT;
    if (s->capture) { note(s, "copy %zu\n", bytes); return SUCCESS; }
    memcpy(to, from, bytes);
    return SUCCESS;
}
result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, struct stream *s) { ENTER; return copy(s, (void *)to, from, bytes); }
result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, struct stream *s) { ENTER; return copy(s, to, (void *)from, bytes); }
result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, struct stream *s) { ENTER; return copy(s, (void *)to, (void *)from, bytes); }
result cuMemcpyPeerAsync(uint64_t to, void *a, uint64_t from, void *b, size_t bytes, struct stream *s) { ENTER; return copy(s, (void *)to, (void *)from, bytes); }
result cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, struct stream *s) {
    ENTER; NEED_CONTEXT;
    if (s->capture) { note(s, "set %zu\n", bytes); return SUCCESS; }
    memset((void *)to, value, bytes);
    return SUCCESS;
}

result cuStreamCreateWithPriority(struct stream **s, unsigned flags, int priority) {
    ENTER; NEED_CONTEXT;
    if (flags != 1) return INVALID_VALUE;
    *s = calloc(1, sizeof **s);
    live++;
    return SUCCESS;
}
result cuStreamDestroy_v2(struct stream *s) { ENTER; free(s); live--; return SUCCESS; }
result cuStreamSynchronize(struct stream *s) { ENTER; NEED_CONTEXT; return s->capture ? CAPTURE_UNSUPPORTED : SUCCESS; }
result cuStreamQuery(struct stream *s) { ENTER; return SUCCESS; }
result cuStreamWaitEvent(struct stream *s, struct event *e, unsigned flags) { ENTER; return SUCCESS; }
result cuStreamIsCapturing(struct stream *s, int *status) { ENTER; *status = s->capture != NULL; return SUCCESS; }
result cuStreamBeginCapture_v2(struct stream *s, int mode) {
    ENTER;
    if (s->capture) return INVALID_VALUE;
    s->capture = calloc(1, sizeof *s->capture);
    live++;
    return SUCCESS;
}
result cuStreamEndCapture(struct stream *s, struct graph **graph) {
    *graph = s->capture;
    s->capture = NULL;
    result r = enter(__func__);
    if (r) { free(*graph); *graph = NULL; live--; }
    return r;
}

result cuEventCreate(struct event **e, unsigned flags) { ENTER; NEED_CONTEXT; *e = calloc(1, sizeof **e); live++; return SUCCESS; }
result cuEventDestroy_v2(struct event *e) { ENTER; free(e); live--; return SUCCESS; }
result cuEventRecord(struct event *e, struct stream *s) { ENTER; NEED_CONTEXT; e->time = ++ticks; return SUCCESS; }
result cuEventQuery(struct event *e) { ENTER; return SUCCESS; }
result cuEventSynchronize(struct event *e) { ENTER; return SUCCESS; }
result cuEventElapsedTime(float *ms, struct event *start, struct event *end) { ENTER; *ms = end->time - start->time; return SUCCESS; }

result cuModuleLoadDataEx(struct module **module, const char *image, unsigned count, int *options, void **values) {
    ENTER; NEED_CONTEXT;
    if (!strncmp(image, "bad", 3)) {
        for (unsigned i = 0; i < count; i++)
            if (options[i] == 5) strcpy(values[i], "ptxas application ptx input, line 3; fatal: no\nmore");
        return 218;
    }
    *module = calloc(1, sizeof **module);
    live++;
    char text[1024];
    strncpy(text, image, 1023);
    char *rest = text, *entry;
    while ((entry = strsep(&rest, ";")) && *entry) {
        struct kernel *k = &(*module)->kernels[(*module)->count++];
        char *name = strsep(&entry, ":"), *size;
        strcpy(k->name, name);
        k->dynamic_shared = 49152;
        while (entry && (size = strsep(&entry, ","))) k->bytes[k->count++] = atoi(size);
    }
    return SUCCESS;
}
result cuModuleUnload(struct module *module) { ENTER; free(module); live--; return SUCCESS; }
result cuModuleGetFunction(struct kernel **k, struct module *module, const char *name) {
    ENTER;
    for (int i = 0; i < module->count; i++)
        if (!strcmp(module->kernels[i].name, name)) { *k = &module->kernels[i]; return SUCCESS; }
    return NOT_FOUND;
}
result cuModuleGetGlobal_v2(uint64_t *address, size_t *bytes, struct module *module, const char *name) {
    ENTER;
    if (strcmp(name, "table")) return NOT_FOUND;
    *address = 0x5000; *bytes = 64;
    return SUCCESS;
}
result cuFuncGetAttribute(int *value, int attribute, struct kernel *k) {
    ENTER;
    switch (attribute) {
        case 0: *value = 512; break;                /* threads per block */
        case 1: *value = 1024; break;               /* static shared memory */
        case 3: *value = 0; break;                  /* local memory */
        case 4: *value = 128; break;                /* registers */
        case 8: *value = k->dynamic_shared; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}
result cuFuncSetAttribute(struct kernel *k, int attribute, int value) {
    ENTER;
    if (attribute != 8 || value > 232448 - 1024) return INVALID_VALUE;
    k->dynamic_shared = value;
    return SUCCESS;
}

struct attribute { int id; char pad[4]; union { struct { unsigned x, y, z; } cluster; int number; char bytes[64]; } value; };
struct config { unsigned grid[3], block[3], shared; struct stream *stream; struct attribute *attributes; unsigned count; };
result cuLaunchKernelEx(const struct config *c, struct kernel *k, void **parameters, void **extra) {
    ENTER; NEED_CONTEXT;
    if (c->block[0] * c->block[1] * c->block[2] > 512) return 701;
    if (c->shared > (unsigned)k->dynamic_shared || !c->grid[0]) return INVALID_VALUE;
    char text[1024] = "";
    char *end = text;
    for (unsigned i = 0; i < c->count; i++) {
        struct attribute *a = &c->attributes[i];
        if (a->id == 4) end += sprintf(end, " cluster %u %u %u", a->value.cluster.x, a->value.cluster.y, a->value.cluster.z);
        else end += sprintf(end, " %s %d", a->id == 6 ? "overlap" : a->id == 2 ? "cooperative" : "?", a->value.number);
    }
    for (int i = 0; i < k->count; i++) {
        end += sprintf(end, " ");
        for (size_t byte = 0; byte < k->bytes[i]; byte++) end += sprintf(end, "%02x", ((unsigned char *)parameters[i])[byte]);
    }
    note(c->stream, "%s grid %u %u %u block %u %u %u shared %u%s\n", k->name, c->grid[0], c->grid[1], c->grid[2],
         c->block[0], c->block[1], c->block[2], c->shared, text);
    return SUCCESS;
}
result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, struct kernel *k, int threads, size_t shared, unsigned flags) {
    ENTER; *blocks = 2048 / threads; return SUCCESS;
}

struct exec { char text[1 << 14]; int nodes; };
result cuGraphGetNodes(struct graph *g, void *nodes, size_t *count) { ENTER; *count = g->nodes; return SUCCESS; }
result cuGraphDestroy(struct graph *g) { ENTER; free(g); live--; return SUCCESS; }
result cuGraphInstantiateWithFlags(struct exec **e, struct graph *g, unsigned long long flags) {
    ENTER;
    *e = calloc(1, sizeof **e);
    strcpy((*e)->text, g->text);
    (*e)->nodes = g->nodes;
    live++;
    return SUCCESS;
}
result cuGraphExecDestroy(struct exec *e) { ENTER; free(e); live--; return SUCCESS; }
result cuGraphUpload(struct exec *e, struct stream *s) { ENTER; return SUCCESS; }
result cuGraphLaunch(struct exec *e, struct stream *s) { ENTER; NEED_CONTEXT; strcat(launches, e->text); return SUCCESS; }

const struct { int code; const char *name; } names[] = {
    {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {201, "CUDA_ERROR_INVALID_CONTEXT"},
    {218, "CUDA_ERROR_INVALID_PTX"}, {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"}, {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
    {910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"},
};
result cuGetErrorName(unsigned code, const char **name) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((unsigned)names[i].code == code) { *name = names[i].name; return SUCCESS; }
    return INVALID_VALUE;
}

#ifndef WITHOUT_LATER
result cuEventElapsedTime_v2(float *ms, struct event *start, struct event *end) { ENTER; *ms = end->time - start->time; return SUCCESS; }
result cuFuncGetParamInfo(struct kernel *k, size_t index, size_t *offset, size_t *bytes) {
    ENTER;
    if (index >= (size_t)k->count) return INVALID_VALUE;
    *offset = 8 * index;
    *bytes = k->bytes[index];
    return SUCCESS;
}
result cuOccupancyMaxActiveClusters(int *clusters, struct kernel *k, const struct config *c) { ENTER; *clusters = 132 / c->attributes[0].value.cluster.x; return SUCCESS; }
struct update { int result; void *node, *from; };
result cuGraphExecUpdate_v2(struct exec *e, struct graph *g, struct update *update) {
    ENTER;
    if (e->nodes != g->nodes) { update->result = 2; return 910; }
    strcpy(e->text, g->text);
    update->result = 0;
    return SUCCESS;
}
result cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *extents, const uint64_t *strides,
                              const unsigned *tile, const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    ENTER;
    if ((uintptr_t)map % 64) return INVALID_VALUE;
    unsigned *words = map;
    words[0] = type; words[1] = rank; words[2] = (unsigned)(uintptr_t)address; words[3] = extents[0]; words[4] = tile[0]; words[5] = swizzle;
    return SUCCESS;
}
#endif
