#!/bin/bash
# What tracing takes of memory: minjail's peak for a million opens of distinct paths, for a million files that are made and
# removed again, for a hundred thousand ways of 3,400 bytes to a directory, and for 10,000 processes that are there at the same
# time. All are to stay below 64 MiB; the script fails if they do not.
#
#     benches/memory.sh [MINJAIL]          # default: target/release/minjail
set -euo pipefail
minjail=$(realpath "${1:-$(dirname "$0")/../target/release/minjail}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat > opens.c << 'END'
#include <fcntl.h>
#include <stdio.h>
int main(void) {
    for (int i = 0; i < 1000000; i++) {
        char name[100];
        snprintf(name, sizeof name, "no/directory/of/an/ordinary/length/file-%d", i);
        open(name, O_RDONLY);
    }
}
END
cat > files.c << 'END'
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    for (int i = 0; i < 1000000; i++) {
        char name[100];
        snprintf(name, sizeof name, "file-%d", i);
        close(open(name, O_WRONLY | O_CREAT, 0644));
        unlink(name);
    }
}
END
cat > ways.c << 'END'
#include <fcntl.h>
#include <stdio.h>
int main(void) {
    char name[4000];
    for (int i = 0; i < 100000; i++) {
        int length = 0;
        // The same directory, each time by another way.
        for (int bit = 0; bit < 17; bit++) length += sprintf(name + length, i >> bit & 1 ? ".//" : "././");
        while (length < 3400) length += sprintf(name + length, "./");
        sprintf(name + length, "name");
        open(name, O_RDONLY);
    }
}
END
cat > processes.c << 'END'
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    int made = 0;
    for (; made < 10000; made++) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) {
            char name[100];
            snprintf(name, sizeof name, "of-process-%d", made);
            open(name, O_RDONLY);
            pause();
        }
    }
    fprintf(stderr, "%d processes\n", made);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(0) > 0) {}
    return made != 10000;
}
END
gcc -O1 -static -o opens opens.c
gcc -O1 -static -o files files.c
gcc -O1 -static -o ways ways.c
gcc -O1 -static -o processes processes.c

status=0
for program in opens files ways processes; do
    # A process group of its own: the second program ends its children by a signal to the group.
    /usr/bin/time -f %M -o peak setsid --wait "$minjail" trace --quiet --force -t t.trace -- "./$program"
    kib=$(tail -1 peak)
    printf '%-10s peak %d KiB, trace %d KiB\n' "$program" "$kib" "$(du -sk t.trace | cut -f1)"
    [ "$kib" -lt 65536 ] || status=1
done
exit $status
