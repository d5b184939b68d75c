#!/bin/bash
# How large the shipped profiles' images are, as the table in profiles/README.md: the packages that an image's files are
# from, as dpkg says they are installed; the image's files; the image as it is shipped, compressed; and how long the build
# took, proof included. As root, with the packages installed.
#
#     benches/profiles.sh [-m MINJAIL] [PROFILE ...]
set -euo pipefail

minjail=$(dirname "$0")/../target/release/minjail
while getopts m:h option; do
    case $option in
        m) minjail=$OPTARG ;;
        *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
minjail=$(realpath "$minjail")
if [ $# -eq 0 ]; then
    mapfile -t profiles < <("$minjail" profile list | awk '{ print $1 }')
else
    profiles=("$@")
fi
scratch=$(mktemp -d /var/tmp/minjail-profiles-XXXXXX)
trap 'rm -rf "$scratch"' EXIT

echo "| name | packages | installed | files | size | shipped | built and proved in |"
echo "|---|---|---|---|---|---|---|"
for profile in "${profiles[@]}"; do
    start=$(date +%s.%N)
    if ! "$minjail" build "$profile" -o "oci:$scratch/$profile" --json 2> "$scratch/summary"; then
        cat "$scratch/summary" >&2
        exit 1
    fi
    end=$(date +%s.%N)
    tail -n 1 "$scratch/summary" | python3 -c '
import json, sys
name, start, end = sys.argv[1:]
summary = json.load(sys.stdin)
packages = summary["packages"]
size = lambda count: "%.1f MB" % (count / 1e6)
cells = ["`%s`" % name, packages["count"], size(packages["installed-bytes"]), summary["files"], size(summary["bytes"]),
         size(summary["outputs"][0]["bytes"]), "%.1f s" % (float(end) - float(start))]
print("| " + " | ".join(map(str, cells)) + " |")
' "$profile" "$start" "$end"
done
