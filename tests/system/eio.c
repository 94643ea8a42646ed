/* Lets reads of files whose paths have EIO_PATH in them fail, the first EIO_TIMES of a process or all, as a disk or a network file system may. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int descriptor)
{
    char link[64], path[PATH_MAX] = "";
    const char *wanted = getenv("EIO_PATH");
    static int failed;
    const char *times = getenv("EIO_TIMES");
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    return wanted && readlink(link, path, sizeof path - 1) > 0 && strstr(path, wanted)
        && (!times || failed++ < atoi(times));
}

ssize_t read(int descriptor, void *buffer, size_t size)
{
    static ssize_t (*real)(int, void *, size_t);
    if (!real)
        real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    if (fails(descriptor)) {
        errno = EIO;
        return -1;
    }
    return real(descriptor, buffer, size);
}

ssize_t pread(int descriptor, void *buffer, size_t size, off_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real)
        real = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    if (fails(descriptor)) {
        errno = EIO;
        return -1;
    }
    return real(descriptor, buffer, size, offset);
}

ssize_t pread64(int descriptor, void *buffer, size_t size, off64_t offset)
{
    return pread(descriptor, buffer, size, offset);
}
