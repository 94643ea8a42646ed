/* Counts what a process does to the files below a folder, and kills it at one of these operations.
 *
 *     cc -shared -fPIC -O1 -o killer.so killer.c -ldl
 *     KILL_FOLDER=/path KILL_AT=17 KILL_LOG=/elsewhere/log LD_PRELOAD=./killer.so program
 *
 * Operations are writes, flushes, renames, and making, cutting and removing files and folders, of every
 * thread, whether Python or native code asks for them. The one of number KILL_AT doesn't happen; if it is
 * a write, half of it does. KILL_AT=0 only counts. KILL_LOG gets a line each.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long operations;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Whether a path is below the folder; if so, counts, logs, and tells whether this is the end. */
static int last(const char *operation, const char *path) {
    const char *folder = getenv("KILL_FOLDER"), *at = getenv("KILL_AT"), *log = getenv("KILL_LOG");
    size_t length = folder ? strlen(folder) : 0;
    if (!length || strncmp(path, folder, length) || (path[length] != '/' && path[length] != 0)) return 0;
    long number = atomic_fetch_add(&operations, 1) + 1;
    if (log) {
        char line[PATH_MAX + 64];
        int size = snprintf(line, sizeof line, "%ld %s %s\n", number, operation, path + length);
        int out = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (out >= 0) {
            syscall(SYS_write, out, line, size);
            syscall(SYS_close, out);
        }
    }
    return at && number == atol(at);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int last_of_file(const char *operation, int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return last(operation, path);
}

static int last_at(const char *operation, int folder, const char *name) {
    char base[PATH_MAX], path[2 * PATH_MAX];
    if (name[0] == '/') return last(operation, name);
    if (folder == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
    }
    snprintf(path, sizeof path, "%s/%s", base, name);
    return last(operation, path);
}

#define OF_FILE(name, file) \
    if (last_of_file(#name, file)) die()
#define AT_PATH(name, folder, path) \
    if (last_at(#name, folder, path)) die()

ssize_t write(int file, const void *data, size_t size) {
    if (last_of_file("write", file)) {
        REAL(write)(file, data, size / 2);
        die();
    }
    return REAL(write)(file, data, size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t where) {
    if (last_of_file("pwrite", file)) {
        REAL(pwrite)(file, data, size / 2, where);
        die();
    }
    return REAL(pwrite)(file, data, size, where);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t where) {
    if (last_of_file("pwrite", file)) {
        REAL(pwrite64)(file, data, size / 2, where);
        die();
    }
    return REAL(pwrite64)(file, data, size, where);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    OF_FILE(writev, file);
    return REAL(writev)(file, parts, count);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    if (last_of_file("fwrite", fileno(file))) {
        REAL(fwrite)(data, 1, size * count / 2, file);
        REAL(fflush)(file);
        die();
    }
    return REAL(fwrite)(data, size, count, file);
}

int fflush(FILE *file) {
    if (file) OF_FILE(fflush, fileno(file));
    return REAL(fflush)(file);
}

int fclose(FILE *file) {
    OF_FILE(fclose, fileno(file));
    return REAL(fclose)(file);
}

int fsync(int file) {
    OF_FILE(fsync, file);
    return REAL(fsync)(file);
}

int fdatasync(int file) {
    OF_FILE(fdatasync, file);
    return REAL(fdatasync)(file);
}

int ftruncate(int file, off_t size) {
    OF_FILE(ftruncate, file);
    return REAL(ftruncate)(file, size);
}

int ftruncate64(int file, off64_t size) {
    OF_FILE(ftruncate, file);
    return REAL(ftruncate64)(file, size);
}

int rename(const char *from, const char *to) {
    AT_PATH(rename, AT_FDCWD, to);
    return REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int folder, const char *to) {
    AT_PATH(rename, folder, to);
    return REAL(renameat)(from_folder, from, folder, to);
}

int renameat2(int from_folder, const char *from, int folder, const char *to, unsigned flags) {
    AT_PATH(rename, folder, to);
    return REAL(renameat2)(from_folder, from, folder, to, flags);
}

int link(const char *from, const char *to) {
    AT_PATH(link, AT_FDCWD, to);
    return REAL(link)(from, to);
}

int linkat(int from_folder, const char *from, int folder, const char *to, int flags) {
    AT_PATH(link, folder, to);
    return REAL(linkat)(from_folder, from, folder, to, flags);
}

int unlink(const char *path) {
    AT_PATH(unlink, AT_FDCWD, path);
    return REAL(unlink)(path);
}

int unlinkat(int folder, const char *path, int flags) {
    AT_PATH(unlink, folder, path);
    return REAL(unlinkat)(folder, path, flags);
}

int rmdir(const char *path) {
    AT_PATH(rmdir, AT_FDCWD, path);
    return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode) {
    AT_PATH(mkdir, AT_FDCWD, path);
    return REAL(mkdir)(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    AT_PATH(mkdir, folder, path);
    return REAL(mkdirat)(folder, path, mode);
}
