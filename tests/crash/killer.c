/* Preloaded into a process, kills it at its n-th call that changes files below a folder: at a write when half of it
 * is written, else before the call. With n = 0 it only counts.
 *
 * Built and used by tests/crash/killing.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long kill_at = -1, calls = 0;
static char root[4096];

void killer_arm(long at, const char *below) {
    snprintf(root, sizeof root, "%s", below);
    calls = 0;
    kill_at = at;
}

long killer_calls(void) { return calls; }

static int below(int folder, const char *path) {
    char place[4096], link[64];
    if (path[0] == '/') return strncmp(path, root, strlen(root)) == 0;
    if (folder == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, place, sizeof place - 1);
    if (length < 0) return 0;
    place[length] = 0;
    return strncmp(place, root, strlen(root)) == 0;
}

static int is_last(int folder, const char *path) {
    return kill_at >= 0 && below(folder, path) && atomic_fetch_add(&calls, 1) + 1 == kill_at;
}

static void die_at(int folder, const char *path) {
    if (is_last(folder, path)) _exit(137);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPENER(name)                                                        \
    int name(const char *path, int flags, ...) {                            \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        if (flags & (O_CREAT | O_TRUNC)) die_at(AT_FDCWD, path);    \
        return REAL(name)(path, flags, mode);                               \
    }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name)                                                     \
    int name(int folder, const char *path, int flags, ...) {                \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                       \
        if (flags & (O_CREAT | O_TRUNC)) die_at(folder, path);      \
        return REAL(name)(folder, path, flags, mode);                       \
    }
OPENER_AT(openat)
OPENER_AT(openat64)

int rename(const char *from, const char *to) {
    die_at(AT_FDCWD, to);
    return REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    die_at(b, to);
    return REAL(renameat)(a, from, b, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    die_at(b, to);
    return REAL(renameat2)(a, from, b, to, flags);
}
int link(const char *from, const char *to) {
    die_at(AT_FDCWD, to);
    return REAL(link)(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    die_at(b, to);
    return REAL(linkat)(a, from, b, to, flags);
}
int unlink(const char *path) {
    die_at(AT_FDCWD, path);
    return REAL(unlink)(path);
}
int unlinkat(int folder, const char *path, int flags) {
    die_at(folder, path);
    return REAL(unlinkat)(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    if (access(path, F_OK)) die_at(AT_FDCWD, path);
    return REAL(mkdir)(path, mode);
}
int rmdir(const char *path) {
    die_at(AT_FDCWD, path);
    return REAL(rmdir)(path);
}
ssize_t write(int file, const void *data, size_t size) {
    if (is_last(file, "")) {
        REAL(write)(file, data, size / 2);
        _exit(137);
    }
    return REAL(write)(file, data, size);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    if (is_last(file, "")) {
        REAL(pwrite64)(file, data, size / 2, at);
        _exit(137);
    }
    return REAL(pwrite64)(file, data, size, at);
}
ssize_t writev(int file, const struct iovec *parts, int number) {
    die_at(file, "");
    return REAL(writev)(file, parts, number);
}
