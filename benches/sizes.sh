#!/bin/bash
# How large images are: the layer of each program beside a tar file of what a plain copy after strace takes
# (benches/copied.py says what that is), both uncompressed; how they compare if the copy takes what the program only looked
# at, too; and whether the plain copy runs. Every path of the image must have an answer to `minjail why`. As root, with the
# packages of tests/packages.txt.
#
#     benches/sizes.sh [-m MINJAIL] [PROGRAM...]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
minjail=$here/../target/release/minjail
while getopts m:h option; do
    case $option in
        m) minjail=$OPTARG ;;
        *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
minjail=$(realpath "$minjail")
programs=("$@")
[ $# -gt 0 ] || programs=(date getent iconv curl openssl man git gcc imagemagick ffmpeg nginx redis postgres mariadb \
    perl ruby php node java python python-zones busybox skopeo)

clean=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
# Not where temporary files are: what is read there is kept in the trace.
scratch=$(mktemp -d /var/cache/minjail-sizes-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
work=$scratch/work

# Sets what a program runs, as `command`, and lays out what it finds in its directory.
prepare() {
    cd "$scratch"
    rm -rf "$work"
    mkdir "$work"
    cd "$work"
    case $1 in
        date) command=(date -d @0) ;;
        getent) command=(getent passwd root) ;;
        iconv) echo note > note.txt; command=(iconv -f UTF-8 -t EUC-JP note.txt) ;;
        curl) echo note > note.txt; command=(curl -sS "file://$work/note.txt") ;;
        openssl) echo note > note.txt; command=(openssl dgst -sha256 note.txt) ;;
        man) printf '.TH NOTE 1\n.SH NAME\nnote \\- says it\n' > note.1; command=(man -l -P cat ./note.1) ;;
        git) command=(sh -c 'git init -q a && cd a && echo x > x && git add x &&
            git -c user.name=A -c user.email=a@example.org commit -q -m x && cd .. && git clone -q a b && git -C b log --format=%s') ;;
        gcc) printf 'int main(void) { return 0; }\n' > a.c; command=(gcc -O1 -o a a.c) ;;
        imagemagick) command=(convert -size 40x30 gradient:red-blue a.png) ;;
        ffmpeg) command=(ffmpeg -v error -f lavfi -i testsrc=duration=1:size=32x32:rate=5 -y a.mkv) ;;
        nginx) command=(nginx -t -q) ;;
        redis) command=(sh -c 'redis-server --port 0 --unixsocket ./s --dir . > log & sleep 1; redis-cli -s ./s set a 1; redis-cli -s ./s shutdown nosave; wait') ;;
        postgres) chown nobody:nogroup "$work"
            command=(setpriv --reuid=nobody --regid=nogroup --clear-groups
                "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/initdb" -D data -U admin -A trust) ;;
        mariadb) command=(mariadb --version) ;;
        perl) command=(perl -MJSON::PP -MPOSIX=floor -MDigest::SHA=sha1_hex -e 'print encode_json([floor(2.5), sha1_hex("x")])') ;;
        ruby) command=(ruby -rjson -ryaml -ropenssl -e 'puts JSON.generate([1]), YAML.dump([1])') ;;
        php) command=(php -r 'echo json_encode([1]), hash("sha256", "x");') ;;
        node) command=(node -e 'console.log(require("crypto").createHash("sha256").update("x").digest("hex"))') ;;
        java) command=(java -version) ;;
        python) command=(/usr/bin/python3 -c 'import json, ssl, sqlite3; print(json.dumps([1]))') ;;
        python-zones) command=(/usr/bin/python3 -c 'import zoneinfo; print(zoneinfo.ZoneInfo("Asia/Tokyo"))') ;;
        busybox) echo note > note.txt; command=(busybox sha256sum note.txt) ;;
        skopeo) command=(skopeo --version) ;;
        *) echo "no program \`$1\`" >&2; exit 2 ;;
    esac
}

# A path of the image for which `minjail why` has no reason ends everything.
explain() {
    /usr/bin/python3 -c 'import json, sys; print("\n".join(entry["path"] for entry in json.load(sys.stdin)["entries"]))' \
        < "$scratch/lock" > "$scratch/paths"
    if ! xargs -d '\n' "$minjail" why "$scratch/lock" < "$scratch/paths" > "$scratch/why" 2>&1 ||
        awk '/^\// && open { exit 1 } { open = /^\// } END { if (open) exit 1 }' "$scratch/why"; then
        :
    else
        echo "$1: a path has no reason" >&2
        exit 1
    fi
}

# Whether a chroot of the plain copy runs the program to its end, given all that a container is given.
copy_runs() {
    local copy=$scratch/copy
    rm -rf "$copy"
    mkdir "$copy"
    tar -xpf "$scratch/copy.tar" -C "$copy"
    prepare "$1"
    mkdir -p "$copy$work" "$copy/tmp" "$copy/dev" "$copy/proc"
    chmod 1777 "$copy/tmp"
    cp -a "$work/." "$copy$work"
    chown --reference="$work" "$copy$work"
    # The mounts are gone with the program.
    if timeout 60 unshare -m sh -c 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec "$@"' "$copy" \
        "${clean[@]}" unshare --root="$copy" --wd="$work" "${command[@]}" > "$scratch/copy.out" 2>&1 < /dev/null
    then echo yes; else echo no; fi
}

size() { stat -c %s "$1"; }

# The paths that the strace of $program gives, as a tar file.
copy() {
    /usr/bin/python3 "$here/copied.py" "$scratch/strace" "$work" "${@:2}" > "$scratch/list"
    tar -cf "$scratch/$1.tar" -b 1 --no-recursion --numeric-owner --sparse -T "$scratch/list" 2> "$scratch/said" ||
        { cat "$scratch/said" >&2; exit 1; }
}

echo "| program | plain copy | our layer | ratio | with what was looked at | the plain copy runs |"
echo "|---|---|---|---|---|---|"
for program in "${programs[@]}"; do
    prepare "$program"
    # Once before, so that caches are as they will be.
    timeout 60 "${clean[@]}" "${command[@]}" > /dev/null 2>&1 < /dev/null
    prepare "$program"
    "${clean[@]}" strace -f -y -qq -s 4096 -e trace=%file -o "$scratch/strace" "${command[@]}" > /dev/null 2>&1 < /dev/null
    prepare "$program"
    copy copy
    copy looked looked
    "${clean[@]}" "$minjail" trace -q --force -t "$scratch/trace" --lock "$scratch/lock" --compression none \
        -o "layer:$scratch/layer.tar" -- "${command[@]}" > /dev/null 2> "$scratch/said" < /dev/null ||
        { cat "$scratch/said" >&2; exit 1; }
    explain "$program"
    cd "$scratch"
    runs=$(copy_runs "$program")
    /usr/bin/python3 - "$program" "$runs" "$(size "$scratch/copy.tar")" "$(size "$scratch/looked.tar")" \
        "$(size "$scratch/layer.tar")" << 'END'
import sys
name, runs, *sizes = sys.argv[1:]
plain, looked, ours = map(int, sizes)
print(f"| {name} | {plain / 1e6:.1f} MB | {ours / 1e6:.1f} MB | {ours / plain:.3f} | {ours / looked:.3f} | {runs} |", flush=True)
END
done
