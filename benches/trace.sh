#!/bin/bash
# What tracing costs: each workload plain, under `minjail trace`, and under strace in two ways, in turns.
#
#     benches/trace.sh [-n ROUNDS] [-m MINJAIL] [WORKLOAD]...
#
# A round runs every variant once, and starts with another one each time; each time is divided by the plain one of the
# same round, so that a machine that grows slow in between does not speak for one of them. Shown are the median of these
# ratios and their spread. For the servers (W5) the ratio is that of throughput: there more is better.
set -euo pipefail

usage="usage: benches/trace.sh [-n ROUNDS] [-m MINJAIL] [w1 w2 w3 w4 w5-nginx w5-redis w6]"
rounds=7
minjail=$(dirname "$0")/../target/release/minjail
while getopts n:m:h option; do
    case $option in
        n) rounds=$OPTARG ;;
        m) minjail=$OPTARG ;;
        h) echo "$usage"; exit 0 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
workloads=("${@:-all}")
[ "${workloads[0]}" != all ] || workloads=(w1 w2 w3 w4 w5-nginx w5-redis w6)

here=$(cd "$(dirname "$0")" && pwd)
# Not where temporary files are: what is read there is kept in the trace, since it may be gone when an image is built.
directory=$(mktemp -d "${XDG_CACHE_HOME:-$HOME}/.minjail-bench-XXXXXX")
server=

# Whatever happens: no server goes on, and no file stays.
clean_up() {
    if [ -n "$server" ]; then
        kill -KILL "$server" "$(cat "$directory/server.pid" 2> /dev/null)" 2> /dev/null || true
    fi
    rm -rf "$directory"
}
trap clean_up EXIT

variants=(plain)
if [ -x "$minjail" ]; then
    minjail=$(realpath "$minjail")
    variants+=(minjail)
else
    echo "no minjail at $minjail: \`cargo build --release\` makes it; going on without" >&2
fi
if command -v strace > /dev/null; then
    variants+=(strace-file strace)
else
    echo "strace is not installed; going on without" >&2
fi

# Runs a command as a variant says.
under() {
    local variant=$1
    shift
    case $variant in
        plain) exec "$@" ;;
        minjail) exec "$minjail" trace --quiet -t "$directory/bench.trace" -- "$@" ;;
        strace-file) exec strace -f --seccomp-bpf -e trace=%file -o /dev/null "$@" ;;
        strace) exec strace -f -o /dev/null "$@" ;;
    esac
}

# What must be there before the first round of a workload.
prepare() {
    case $1 in
        w4)
            mkdir -p "$directory/c"
            printf 'OBJECTS = %s\nall: $(OBJECTS)\nclean:\n\trm -f $(OBJECTS)\n%%.o: %%.c\n\tgcc -O0 -c -o $@ $<\n' \
                "$(seq -f 'f%g.o' -s ' ' 20)" > "$directory/c/Makefile"
            for i in $(seq 20); do
                printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n' \
                    > "$directory/c/f$i.c"
                printf '#include <sys/stat.h>\nint f%d(void) { return puts("f%d"); }\n' "$i" "$i" \
                    >> "$directory/c/f$i.c"
            done
            ;;
        w5-nginx)
            mkdir -p "$directory/www"
            echo '<h1>A page</h1>' > "$directory/www/index.html"
            chmod 755 "$directory" "$directory/www"
            cat > "$directory/nginx.conf" << CONF
worker_processes 1;
pid $directory/server.pid;
events {}
http { access_log off; server { listen 127.0.0.1:18080; root $directory/www; } }
CONF
            ;;
        w6)
            gcc -O2 -pthread -o "$directory/opener" "$here/opener.c"
            mkdir -p "$directory/many"
            "$directory/opener" make "$directory/many"
            ;;
    esac
}

# A workload's command, run as a variant says; nothing of it is shown.
workload() {
    local name=$1 variant=$2
    case $name in
        w1) under "$variant" /usr/bin/python3 -c \
            'import ssl, json, sqlite3, email.message, http.client, decimal, xml.etree.ElementTree, unittest' ;;
        w2) under "$variant" find /usr -xdev -printf '%s\n' ;;
        w3) under "$variant" sh -c 'i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i + 1)); done' ;;
        w4) under "$variant" make -s -j2 -C "$directory/c" ;;
        w6) under "$variant" "$directory/opener" open "$directory/many" ;;
        w5-nginx) under "$variant" nginx -e stderr -c "$directory/nginx.conf" -g 'daemon off;' ;;
        w5-redis) under "$variant" redis-server --port 16379 --bind 127.0.0.1 --save '' --dir "$directory" \
            --pidfile "$directory/server.pid" ;;
    esac
}

# Seconds that a workload took as a variant.
seconds() {
    local name=$1 variant=$2
    rm -rf "$directory/bench.trace"
    [ "$name" != w4 ] || make -s -C "$directory/c" clean
    local start=$EPOCHREALTIME
    (workload "$name" "$variant") > /dev/null 2> "$directory/errors" < /dev/null || {
        echo "$name failed as $variant:" >&2
        cat "$directory/errors" >&2
        return 1
    }
    local end=$EPOCHREALTIME
    awk -v start="$start" -v end="$end" 'BEGIN { printf "%.6f\n", end - start }'
}

# Requests a second that a server answered as a variant.
throughput() {
    local name=$1 variant=$2 port=18080
    [ "$name" != w5-redis ] || port=16379
    rm -rf "$directory/bench.trace"
    (workload "$name" "$variant") > "$directory/errors" 2>&1 < /dev/null &
    server=$!
    for _ in $(seq 200); do
        ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
        sleep 0.05
    done
    local answered
    if [ "$name" = w5-nginx ]; then
        answered=$(wrk -t1 -c16 -d2s "http://127.0.0.1:$port/" | awk '/^Requests\/sec/ { print $2 }')
    else
        answered=$(redis-benchmark -p "$port" -t get -n 50000 -q --csv | awk -F'"' '$2 == "GET" { print $4 }')
    fi
    if [ -z "$answered" ] || [ "$answered" = 0.00 ]; then
        echo "$name answered nothing as $variant:" >&2
        cat "$directory/errors" >&2
        return 1
    fi
    echo "$answered"
    # Ended by the server's own means: not every tracer hands a signal on.
    if [ "$name" = w5-nginx ]; then
        kill -TERM "$(cat "$directory/server.pid")"
    else
        redis-cli -p "$port" shutdown nosave > /dev/null 2>&1 || true
    fi
    wait "$server" || true
    server=
}

# The median, least and greatest of the numbers on standard input.
spread() {
    sort -g | awk '
        { value[NR] = $1 }
        END {
            median = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
            form = median < 1000 ? "%.3g" : "%.0f"
            printf form "\t" form "\t" form "\n", median, value[1], value[NR]
        }'
}

needs() {
    case $1 in
        w1) echo python3 ;;
        w4) echo make gcc ;;
        w5-nginx) echo nginx wrk ;;
        w5-redis) echo redis-server redis-benchmark redis-cli ;;
        w6) echo gcc ;;
    esac
}

printf '%-9s %-12s %10s %9s   %s\n' workload variant median ratio "least - greatest ratio of $rounds rounds"
for name in "${workloads[@]}"; do
    for program in $(needs "$name"); do
        if ! command -v "$program" > /dev/null; then
            echo "$name needs $program, which is not installed; left out" >&2
            continue 2
        fi
    done
    measure=seconds unit=s
    case $name in
        w5-*) measure=throughput unit=/s ;;
        w1 | w2 | w3 | w4 | w6) ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    prepare "$name"
    # Once unmeasured, so that the first round does not pay for reading everything from the disk.
    "$measure" "$name" plain > /dev/null
    for round in $(seq 0 $((rounds - 1))); do
        for turn in "${!variants[@]}"; do
            variant=${variants[(turn + round) % ${#variants[@]}]}
            "$measure" "$name" "$variant" >> "$directory/$name.$variant"
        done
    done
    for variant in "${variants[@]}"; do
        IFS=$'\t' read -r median _ _ < <(spread < "$directory/$name.$variant")
        IFS=$'\t' read -r ratio least greatest < <(
            paste "$directory/$name.$variant" "$directory/$name.plain" | awk '{ print $1 / $2 }' | spread)
        printf '%-9s %-12s %8s%-2s %9s   %s - %s\n' "$name" "$variant" "$median" "$unit" "$ratio" "$least" "$greatest"
    done
done
