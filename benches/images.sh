#!/bin/bash
# Slims images such as people have, made of this machine's packages, and shows sizes and times. Each image answers in podman
# before and after, and the answers must be the same. As root, with python3-flask, nginx-light, git, perl, ruby, a JDK, musl-tools,
# busybox-static, podman, runc and curl installed.
#
#   benches/images.sh [MINJAIL] [IMAGE...]     the images are flask, tools, nginx, jvm and musl
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
minjail=$(realpath "${1:-$here/target/release/minjail}")
shift || true
images=("${@:-flask}")
[ $# -gt 0 ] || images=(flask tools nginx jvm musl)

# Not in /tmp: minjail treats what lies there in a way of its own.
work=$(mktemp -d /var/tmp/minjail-images-XXXXXX)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache CONTAINERS_CONF=$work/containers.conf
printf '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\nnetns="none"\n[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\n' > "$CONTAINERS_CONF"

podman() { command podman --storage-driver vfs --log-level error --root "$work/store" --runroot "$work/run" --tmpdir "$work/tmp" "$@"; }

# from_packages NAME PACKAGE...: a Debian root with these packages, as the base layer.
from_packages() {
    local name=$1
    shift
    "$here/fixtures/roots/from-packages.py" "$work/$name/base" "$@" > /dev/null
    mkdir -p "$work/$name/app/srv"
}

# An image has roots, a configuration, and a way to be asked: `ask NAME CONTAINER` if it is a server.
make_flask() {
    from_packages flask python3-flask python3-dev git tzdata
    cat > "$work/flask/app/srv/app.py" << 'END'
import flask, sqlite3, zoneinfo, datetime
app = flask.Flask(__name__)
@app.route("/<name>")
def hello(name):
    zone = datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).isoformat()
    return flask.jsonify(hello=name, zone=zone, one=sqlite3.connect(":memory:").execute("select 1").fetchone())
app.run("127.0.0.1", 8000)
END
    config='{"Cmd": ["/usr/bin/python3", "/srv/app.py"], "ExposedPorts": {"8000/tcp": {}}}'
    profile='workloads: {serve: {run: [/usr/bin/python3, /srv/app.py], ready: {port: 8000}, probes: [{http: {port: 8000, path: /world, text: {contains: world}}}]}}'
    question=http://127.0.0.1:8000/you
}

make_tools() {
    from_packages tools git perl ruby
    cat > "$work/tools/app/srv/run.sh" << 'END'
set -e
cd /tmp && git init -q repo && cd repo && git config user.name me && git config user.email me@example.org
echo text > file && git add file && GIT_COMMITTER_DATE=2024-01-01T00:00:00Z GIT_AUTHOR_DATE=2024-01-01T00:00:00Z git commit -q -m one && git log --format=%H%s
perl -MJSON::PP -MPOSIX=strftime -e 'print encode_json([strftime("%Y", gmtime 0)]), "\n"'
ruby -rjson -rdigest -e 'puts JSON.generate({sum: Digest::SHA256.hexdigest("x")})'
END
    config='{"Cmd": ["/bin/sh", "/srv/run.sh"], "Env": ["HOME=/root"]}'
    profile= question=
}

make_nginx() {
    from_packages nginx nginx-light
    mkdir -p "$work/nginx/app/var/www/html"
    echo '<p>a page</p>' > "$work/nginx/app/var/www/html/index.html"
    config='{"Cmd": ["/usr/sbin/nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}'
    profile='workloads: {serve: {run: [/usr/sbin/nginx, -g, daemon off;], ready: {port: 80}, probes: [{http: {port: 80, path: /index.html, text: {contains: page}}}], stop: {signal: QUIT}}}'
    question=http://127.0.0.1:80/index.html
}

make_jvm() {
    from_packages jvm openjdk-17-jre-headless
    cat > "$work/Hello.java" << 'END'
import java.util.*;
public class Hello {
    public static void main(String[] arguments) throws Exception {
        var sum = java.security.MessageDigest.getInstance("SHA-256").digest("x".getBytes("UTF-8"));
        System.out.println(HexFormat.of().formatHex(sum) + " " + java.time.ZonedDateTime.of(2024, 7, 1, 0, 0, 0, 0, java.time.ZoneId.of("Asia/Tokyo")));
    }
}
END
    javac -d "$work/jvm/app/srv" "$work/Hello.java"
    config='{"Cmd": ["/usr/bin/java", "-cp", "/srv", "Hello"]}'
    profile= question=
}

make_musl() {
    local name
    mkdir -p "$work"/musl/base/{bin,lib,etc,srv} "$work/musl/app/srv"
    cp /usr/lib/x86_64-linux-musl/libc.so "$work/musl/base/lib/ld-musl-x86_64.so.1"
    cp /bin/busybox "$work/musl/base/bin/"
    for name in $(/bin/busybox --list); do [ -e "$work/musl/base/bin/$name" ] || ln -s busybox "$work/musl/base/bin/$name"; done
    printf 'root:x:0:0:root:/root:/bin/sh\n' > "$work/musl/base/etc/passwd"
    printf '#include <stdio.h>\n#include <time.h>\nint main(void) { time_t t = 0; printf("%%s", asctime(gmtime(&t))); }\n' > "$work/hello.c"
    musl-gcc -o "$work/musl/app/srv/hello" "$work/hello.c"
    config='{"Cmd": ["/bin/sh", "-c", "/srv/hello; sha256sum /etc/passwd | cut -c 1-8; id -un"]}'
    profile= question=
}

# answer NAME LAYOUT: what the image says in podman.
answer() {
    local container pid id
    # podman names what it pulls after the directory, and refuses capitals: so from inside.
    id=$(cd "$work" && podman pull -q "oci:$1/$2")
    if [ -z "$question" ]; then
        podman run --rm --pull=never "$id"
        return
    fi
    container=$(podman run -d --pull=never "$id")
    pid=$(podman inspect -f '{{.State.Pid}}' "$container")
    nsenter -t "$pid" -n ip link set lo up 2> /dev/null || true
    nsenter -t "$pid" -n curl -s --fail --retry 60 --retry-delay 1 --retry-connrefused "$question"
    podman stop -t 10 "$container" > /dev/null
    podman rm -f "$container" > /dev/null
}

# What a command takes: seconds, and those of the processors.
seconds() {
    local TIMEFORMAT='%R %U %S'
    { time "$@" > "$work/told" 2>&1; } 2> "$work/taken" || { cat "$work/told" >&2; exit 1; }
    read -r real user system < "$work/taken"
    echo "$real $(echo "$user + $system" | bc)"
}

megabytes() { echo "scale=1; $1 / 1000000" | bc; }
blobs() { du -sb "$1/blobs" | cut -f 1; }

printf '%-6s %14s %14s %14s %14s %8s %8s %8s\n' image 'MB unpacked' 'MB packed' 'thin unpacked' 'thin packed' 'slim s' 'cpu s' 'again s'
for name in "${images[@]}"; do
    "make_$name"
    "$here/fixtures/images/from-roots.py" "$work/$name/layout" "$config" "$work/$name/base" "$work/$name/app"
    fat=oci:$work/$name/layout thin=oci:$work/$name/thin
    arguments=()
    if [ -n "$profile" ]; then
        echo "$profile" > "$work/profile.yaml"
        arguments=(-p "$work/profile.yaml")
    fi
    read -r first busy <<< "$(seconds "$minjail" slim "$fat" -o "$thin" "${arguments[@]}")"
    read -r again _ <<< "$(seconds "$minjail" slim "$fat" -o "$thin" --force "${arguments[@]}")"
    answer "$name" layout:1 > "$work/before"
    answer "$name" thin:latest > "$work/after"
    cmp "$work/before" "$work/after" || { echo "$name answers otherwise" >&2; exit 1; }
    "$minjail" unpack -q "$thin" -o "rootfs:$work/$name/tree"
    printf '%-6s %14s %14s %14s %14s %8.1f %8.1f %8.1f\n' "$name" "$(megabytes "$(du -sb --apparent-size "$work/$name/base" | cut -f 1)")" \
        "$(megabytes "$(blobs "$work/$name/layout")")" "$(megabytes "$(du -sb --apparent-size "$work/$name/tree" | cut -f 1)")" \
        "$(megabytes "$(blobs "$work/$name/thin")")" "$first" "$busy" "$again"
    rm -rf "${work:?}/$name" "$work/cache"
done
