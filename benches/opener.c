/* 8 threads that open 100,000 files: `opener make DIR` makes them, `opener open DIR` opens and closes each once. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS = 8, FILES = 12500 };

static const char *directory;
static int flags;

static void *visit(void *argument) {
    char path[4096];
    long thread = (long)argument;
    for (int file = 0; file < FILES; file++) {
        snprintf(path, sizeof path, "%s/%ld/%d", directory, thread, file);
        int descriptor = open(path, flags, 0644);
        if (descriptor < 0) {
            perror(path);
            exit(1);
        }
        close(descriptor);
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    if (argc != 3) {
        fprintf(stderr, "usage: opener make|open DIR\n");
        return 2;
    }
    directory = argv[2];
    flags = strcmp(argv[1], "make") == 0 ? O_WRONLY | O_CREAT : O_RDONLY;
    for (long thread = 0; thread < THREADS; thread++) {
        if (flags != O_RDONLY) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%ld", directory, thread);
            mkdir(path, 0755);
        }
        if (pthread_create(&threads[thread], NULL, visit, (void *)thread) != 0) {
            fprintf(stderr, "opener: no thread\n");
            return 1;
        }
    }
    for (int thread = 0; thread < THREADS; thread++) {
        pthread_join(threads[thread], NULL);
    }
    return 0;
}
