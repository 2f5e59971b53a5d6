// What the module imports, and nothing else: five functions of WASI preview 1 (the
// environment is two of them more) and the module "casemate".
#ifndef CASEMATE_HOST_H
#define CASEMATE_HOST_H

#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

typedef struct {
    void *data;
    uint32_t len;
} host_vec;

enum { HOST_STDIN, HOST_STDOUT, HOST_STDERR };
enum { HOST_REALTIME, HOST_MONOTONIC };

// They return 0 or an errno.
IMPORT("wasi_snapshot_preview1", "fd_read")
uint32_t host_fd_read(uint32_t fd, const host_vec *vecs, uint32_t n, uint32_t *done);
IMPORT("wasi_snapshot_preview1", "fd_write")
uint32_t host_fd_write(uint32_t fd, const host_vec *vecs, uint32_t n, uint32_t *done);
IMPORT("wasi_snapshot_preview1", "clock_time_get")
uint32_t host_clock_time_get(uint32_t clock, uint64_t precision, uint64_t *ns);
IMPORT("wasi_snapshot_preview1", "random_get")
uint32_t host_random_get(void *data, uint32_t len);
IMPORT("wasi_snapshot_preview1", "environ_sizes_get")
uint32_t host_environ_sizes_get(uint32_t *count, uint32_t *bytes);
IMPORT("wasi_snapshot_preview1", "environ_get")
uint32_t host_environ_get(char **entries, char *bytes);
IMPORT("wasi_snapshot_preview1", "proc_exit")
_Noreturn void host_proc_exit(uint32_t code);

IMPORT("casemate", "call")
int32_t host_call(const char *op, uint32_t op_len, const void *req, uint32_t req_len);
IMPORT("casemate", "submit")
int32_t host_submit(const char *op, uint32_t op_len, const void *req, uint32_t req_len);
IMPORT("casemate", "poll")
int32_t host_poll(void);
IMPORT("casemate", "size")
int32_t host_size(int32_t handle);
IMPORT("casemate", "read")
int32_t host_read(int32_t handle, void *data, uint32_t len);

// host_now is a clock's time in nanoseconds.
static inline uint64_t host_now(uint32_t clock)
{
    uint64_t ns = 0;
    if (host_clock_time_get(clock, 1, &ns) != 0)
        __builtin_trap();
    return ns;
}

// host_write writes everything, or gives the errno.
static uint32_t host_write(uint32_t fd, const void *data, size_t len)
{
    while (len > 0) {
        host_vec vec = {(void *)(uintptr_t)data, len};
        uint32_t done = 0;
        uint32_t err = host_fd_write(fd, &vec, 1, &done);
        if (err != 0)
            return err;
        if (done == 0 || done > len)
            return 29; // EIO
        data = (const char *)data + done;
        len -= done;
    }
    return 0;
}

#endif
