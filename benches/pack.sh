#!/bin/bash
# What packing costs: a tree of 4,000 files and a gibibyte, and a small jail, packed by minjail and by others, in turns.
#
#     benches/pack.sh [-n ROUNDS] [-m MINJAIL] [-d DIRECTORY] [plain] [gzip] [zstd] [images] [small]
#
# minjail's time is that of `minjail build` from a saved trace: it finds out what the files are, hashes each, and packs.
# Each time is divided by that of the first variant of the same round. Shown are the median of these ratios and their
# spread, the largest resident set of any process, and the size of what came out. Nothing goes to a disk: outputs are
# written to DIRECTORY, which should be a tmpfs (default: /dev/shm).
set -euo pipefail

usage="usage: benches/pack.sh [-n ROUNDS] [-m MINJAIL] [-d DIRECTORY] [plain] [gzip] [zstd] [images] [small]"
rounds=5
minjail=$(dirname "$0")/../target/release/minjail
scratch=/dev/shm
while getopts n:m:d:h option; do
    case $option in
        n) rounds=$OPTARG ;;
        m) minjail=$OPTARG ;;
        d) scratch=$OPTARG ;;
        h) echo "$usage"; exit 0 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
groups=("${@:-all}")
[ "${groups[0]}" != all ] || groups=(plain gzip zstd images small)
minjail=$(realpath "$minjail")
cores=$(nproc)

# Not among temporary files, of which a trace keeps copies.
ground=$(mktemp -d /var/cache/minjail-bench-XXXXXX)
out=$(mktemp -d "$scratch/minjail-bench-XXXXXX")
clean_up() {
    rm -rf "$ground" "$out"
}
trap clean_up EXIT

# Copies 4,000 files of this machine, of about so many bytes together, to $ground/tree.
lay_out() {
    python3 - "$ground/tree" << 'PYTHON'
import os, random, shutil, sys
target, count, total = sys.argv[1], 4000, 1 << 30
found = []
for top in ("/usr/bin", "/usr/lib", "/usr/share"):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 16 << 20:
                found.append((os.path.getsize(path), path))
found.sort()
least = 0
while True:
    chosen = random.Random(1).sample(found[least:], count)
    if sum(size for size, _ in chosen) >= total or len(found) - least < count + 500:
        break
    least += 200
for number, (_, path) in enumerate(sorted(chosen, key=lambda pair: pair[1])):
    copy = os.path.join(target, "d%02d" % (number % 50), "%04d-%s" % (number, os.path.basename(path)))
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    shutil.copyfile(path, copy)
PYTHON
    "$minjail" trace -q -t "$ground/tree.trace" -- sh -c 'cat "$0"/*/* > /dev/null' "$ground/tree"
    du -sb "$ground/tree" | awk '{ printf "the tree has %.0f MiB\n", $1 / 1048576 }' >&2
}

tar_tree() {
    echo "tar -C $ground --sort=name -cf - tree"
}

build() {
    echo "$minjail build -q --force -t $ground/tree.trace $*"
}

# The variants of a group, the first of them the one that the others are compared with.
variants() {
    case $1 in
        plain) echo tar-sha256sum tar-openssl minjail-plain ;;
        gzip) echo tar-pigz minjail-gzip ;;
        zstd) echo tar-zstd tar-zstd-hashed minjail-zstd ;;
        images) echo umoci-repack buildah minjail-oci ;;
        small) echo tar-pigz-small minjail-small ;;
    esac
}

# The command of a variant; what it makes is $out/made.
command_of() {
    case $1 in
        tar-sha256sum) echo "$(tar_tree) | sha256sum" ;;
        tar-openssl) echo "$(tar_tree) | openssl sha256" ;;
        minjail-plain) echo "$(build -o layer:-) > /dev/null" ;;
        tar-pigz) echo "$(tar_tree) | pigz -6 -p$cores > $out/made" ;;
        minjail-gzip) build -o "layer:$out/made.tar.gz" --lock "$out/lock" ;;
        tar-zstd) echo "$(tar_tree) | zstd -q -3 -T0 > $out/made" ;;
        # What an image needs besides: the digests of the layer, plain and compressed.
        tar-zstd-hashed)
            echo "mkfifo $out/pipe; openssl sha256 < $out/pipe & $(tar_tree) | tee $out/pipe |" \
                "zstd -q -3 -T0 | tee $out/made | openssl sha256; wait" ;;
        minjail-zstd) build -o "layer:$out/made.tar.zst" --lock "$out/lock" ;;
        minjail-oci) build -o "oci:$out/made:1" --lock "$out/lock" ;;
        umoci-repack)
            echo "umoci init --layout $out/made && umoci new --image $out/made:1 &&" \
                "umoci unpack --image $out/made:1 $out/bundle && cp -a $ground/tree $out/bundle/rootfs/ &&" \
                "umoci repack --image $out/made:2 $out/bundle" ;;
        buildah)
            echo "buildah --storage-driver vfs --root $out/s --runroot $out/r from --name c scratch &&" \
                "buildah --storage-driver vfs --root $out/s --runroot $out/r copy -q c $ground/tree /tree &&" \
                "buildah --storage-driver vfs --root $out/s --runroot $out/r commit -q --disable-compression=false c oci:$out/made:1" ;;
        tar-pigz-small) echo "tar -C $ground -cf - small | pigz -6 -p$cores > $out/made" ;;
        minjail-small)
            echo "$minjail build -q --force -t $ground/small.trace -o layer:$out/made.tar.gz --lock $out/lock" ;;
    esac
}

# `SECONDS KIBIBYTES BYTES` of one run.
measure() {
    rm -rf "${out:?}"/*
    /usr/bin/time -o "$ground/time" -f '%e %M' sh -c "$(command_of "$1")" > "$ground/words" 2>&1 < /dev/null || {
        echo "$1 failed:" >&2
        cat "$ground/words" >&2
        return 1
    }
    local size
    size=$(find "$out" -path "$out/made*" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f", sum }')
    echo "$(cat "$ground/time") $size"
}

# The median, least and greatest of the numbers on standard input.
spread() {
    sort -g | awk '
        { value[NR] = $1 }
        END {
            median = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
            printf "%.3g\t%.3g\t%.3g\n", median, value[1], value[NR]
        }'
}

lay_out
# Some files of a Python, which is what a small jail is made of.
mkdir "$ground/small"
cp -r /usr/lib/python3.*/ "$ground/small/"
find "$ground/small" -name '*.a' -delete
"$minjail" trace -q -t "$ground/small.trace" -- sh -c 'find "$0" -type f -exec cat {} + > /dev/null' "$ground/small"

printf '%-8s %-16s %8s %7s   %-28s %9s %9s\n' group variant median ratio "least - greatest of $rounds" "peak MiB" "size MiB"
for group in "${groups[@]}"; do
    read -ra names <<< "$(variants "$group")"
    # Once unmeasured, so that the first round does not pay for reading everything from the disk.
    measure "${names[-1]}" > /dev/null
    for round in $(seq 0 $((rounds - 1))); do
        for turn in "${!names[@]}"; do
            name=${names[(turn + round) % ${#names[@]}]}
            measure "$name" >> "$ground/$name.times"
        done
    done
    for name in "${names[@]}"; do
        IFS=$'\t' read -r median _ _ < <(awk '{ print $1 }' "$ground/$name.times" | spread)
        IFS=$'\t' read -r ratio least greatest < <(
            paste -d' ' "$ground/$name.times" "$ground/${names[0]}.times" | awk '{ print $1 / $4 }' | spread)
        read -r peak size < <(awk '$2 > peak { peak = $2 } END { printf "%.0f %.1f\n", peak / 1024, $3 / 1048576 }' \
            "$ground/$name.times")
        printf '%-8s %-16s %7ss %7s   %-28s %9s %9s\n' \
            "$group" "$name" "$median" "$ratio" "$least - $greatest" "$peak" "$size"
    done
done
