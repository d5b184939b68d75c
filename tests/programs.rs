//! The main promise, on programs that Debian ships: what a program does natively it does under `minjail trace`, in
//! `minjail run`, and in a container from the image, with the same standard output and the same exit status.

mod support;

use support::program::Program;
use support::{TestContext, has, limited, needs_root, outcome_of};

#[test]
fn python_with_ssl_sqlite_zones_and_a_locale() {
    if !needs_root("podman") {
        return;
    }
    let context = TestContext::new();
    // A fresh Debian has no locale but C: a German one is made, and found by LOCPATH.
    let locales = context.text("locales");
    fs_err::create_dir(&locales).expect("the directory is new");
    let german = format!("{locales}/de_DE.UTF-8");
    outcome_of(limited("localedef").args(["--no-archive", "-i", "de_DE", "-f", "UTF-8", &german])).success();
    let script = r#"
import datetime, hashlib, json, locale, sqlite3, ssl, zoneinfo

print(ssl.create_default_context().verify_mode, len(ssl.create_default_context().get_ca_certs()) > 50)
print(hashlib.sha256(b"minjail").hexdigest())
database = sqlite3.connect("numbers.db")
database.execute("create table numbers (n integer)")
database.executemany("insert into numbers values (?)", [(n,) for n in range(100)])
database.commit()
print(json.dumps({"sum": database.execute("select sum(n) from numbers").fetchone()[0]}))
noon = datetime.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
print(noon.astimezone(zoneinfo.ZoneInfo("America/New_York")).isoformat())
print(locale.setlocale(locale.LC_ALL, "de_DE.UTF-8"), locale.format_string("%.2f", 1234567.891, grouping=True))
print(noon.strftime("%A, %d. %B"))
"#;
    Program {
        argv: &["/usr/bin/python3", "report.py"],
        inputs: &[("report.py", script)],
        environment: &[("LOCPATH", &locales)],
        says: "1.234.567,89\nMontag, 01. Juli",
        ..Program::default()
    }
    .prove(&context);
}

#[test]
fn perl_with_modules() {
    if !needs_root("podman") {
        return;
    }
    let script = r#"
use strict; use warnings; use utf8;
use Digest::SHA qw(sha256_hex); use Encode qw(encode decode); use JSON::PP; use List::Util qw(sum0);
use MIME::Base64; use POSIX qw(strftime floor); use Storable qw(dclone); use Time::Local; use Unicode::Normalize;
binmode STDOUT, ":encoding(UTF-8)";
print sha256_hex("minjail"), " ", encode_base64("jail");
print JSON::PP->new->canonical->encode({ sum => sum0(1 .. 10), floor => floor(2.7) }), "\n";
print strftime("%Y-%m-%d", gmtime(timegm(0, 0, 0, 1, 0, 2000))), " ", NFD("é") eq "e\x{301}" ? "decomposed" : "?", "\n";
print uc(decode("shiftjis", encode("shiftjis", "日本 minjail"))), " ", scalar @{ dclone([1, 2, 3]) }, "\n";
exit 4;
"#;
    Program {
        argv: &["perl", "report.pl"],
        inputs: &[("report.pl", script)],
        status: 4,
        says: "日本 MINJAIL 3",
        form: "oci-archive",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

#[test]
fn a_bash_pipeline() {
    if !needs_root("podman") {
        return;
    }
    let script = r#"#!/bin/bash
set -o pipefail
tr -cs 'a-z' '\n' < words.txt | sort | uniq -c | sort -k1,1nr -k2 | awk '{ print $2 "=" $1 }' \
    | sed -e 's/^/word /' | grep -v '=1$' | tee counts.txt
while read -r _ pair; do printf '%s;' "${pair%%=*}"; done < <(head -n 2 counts.txt)
cut -d= -f2 counts.txt | paste -sd+ | sha256sum
wc -l < counts.txt
[[ -f counts.txt ]] && exit 3
"#;
    Program {
        argv: &["bash", "./count.sh"],
        inputs: &[("count.sh", script), ("words.txt", "the jail and the cell and the key\nand a door\n")],
        status: 3,
        says: "word and=3\nword the=3\nand;the;",
        form: "oci",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

#[test]
fn git_init_commit_log_and_clone() {
    if !needs_root("podman") {
        return;
    }
    let script = "set -e
git init -q -b main here
cd here
cp ../notes.txt .
git add notes.txt
git commit -q -m 'Add the notes'
echo more >> notes.txt
git commit -q -a -m 'Add more'
cd ..
git clone -q \"file://$PWD/here\" there
git -C there log --stat --format='%H %an %ad %s'
git -C there fsck --strict
git -C there diff HEAD~1
";
    Program {
        argv: &["sh", "history.sh"],
        inputs: &[("history.sh", script), ("notes.txt", "a note\n")],
        environment: &[
            ("GIT_AUTHOR_NAME", "A. Author"),
            ("GIT_AUTHOR_EMAIL", "author@example.org"),
            ("GIT_AUTHOR_DATE", "2024-01-01T00:00:00Z"),
            ("GIT_COMMITTER_NAME", "A. Author"),
            ("GIT_COMMITTER_EMAIL", "author@example.org"),
            ("GIT_COMMITTER_DATE", "2024-01-01T00:00:00Z"),
        ],
        says: "Add more",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

#[test]
fn iconv_to_euc_jp() {
    if !needs_root("podman") {
        return;
    }
    Program {
        argv: &["iconv", "-f", "UTF-8", "-t", "EUC-JP", "poem.txt"],
        inputs: &[("poem.txt", "古池や蛙飛びこむ水の音\n")],
        form: "oci-archive",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

#[test]
fn getent_reads_the_accounts() {
    if !needs_root("podman") {
        return;
    }
    Program { argv: &["getent", "passwd", "root"], says: "root:x:0:0:", form: "oci", ..Program::default() }
        .prove(&TestContext::new());
}

#[test]
fn date_in_another_time_zone() {
    if !needs_root("podman") {
        return;
    }
    Program {
        argv: &["date", "-d", "@0", "+%F %T %Z"],
        environment: &[("TZ", "Asia/Tokyo")],
        says: "1970-01-01 09:00:00 JST",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

#[test]
fn a_static_program() {
    if !needs_root("podman") {
        return;
    }
    Program {
        argv: &["/bin/busybox", "sha256sum", "note.txt"],
        inputs: &[("note.txt", "a note\n")],
        says: "note.txt",
        form: "oci",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

/// Go's own runtime and no C library: docker's client, which keeps its contexts in files.
#[test]
fn a_static_program_written_in_go() {
    if !needs_root("podman") || !has(&["docker"]) {
        return;
    }
    let script = "docker context create there --docker host=unix:///there.sock > /dev/null
docker context inspect there --format '{{ .Name }} {{ .Endpoints.docker.Host }}'
docker context rm there
docker --host unix:///nowhere.sock version > seen 2>&1 || echo $? \"$(grep -c 'Cannot connect' seen)\"
";
    Program {
        argv: &["sh", "contexts.sh"],
        inputs: &[("contexts.sh", script)],
        says: "there unix:///there.sock\n",
        form: "oci",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

/// Go with a C library beside it.
#[test]
fn a_program_written_in_go() {
    if !needs_root("podman") || !has(&["skopeo"]) {
        return;
    }
    Program {
        argv: &["skopeo", "manifest-digest", "manifest.json"],
        inputs: &[("manifest.json", "{\"schemaVersion\": 2}\n")],
        says: "sha256:",
        form: "oci-archive",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

#[test]
fn ffmpeg_makes_and_reads_clips() {
    if !needs_root("podman") || !has(&["ffmpeg", "ffprobe"]) {
        return;
    }
    let script = "set -e
ffmpeg -v error -f lavfi -i testsrc=duration=1:size=64x48:rate=5 -f lavfi -i sine=duration=1 -threads 1 -y a.mkv
ffmpeg -v error -i a.mkv -c:v libvpx -c:a libopus -threads 1 -y b.webm
ffmpeg -v error -i b.webm -vf scale=32:24,drawgrid=w=8:h=8 -frames:v 1 -y c.png
ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 b.webm
ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 c.png
";
    Program { argv: &["sh", "clips.sh"], inputs: &[("clips.sh", script)], says: "png,32,24", ..Program::default() }
        .prove(&TestContext::new());
}

#[test]
fn gcc_compiles_and_the_result_runs() {
    if !needs_root("podman") {
        return;
    }
    let source = r#"
#include <math.h>
#include <stdio.h>
#include "answer.h"

int main(int argc, char **argv) {
    printf("%d %.3f\n", ANSWER, sqrt(argc + 1.0));
    return 6;
}
"#;
    Program {
        argv: &["sh", "-c", "gcc -O2 -Wall -o answer answer.c -lm && ./answer"],
        inputs: &[("answer.c", source), ("answer.h", "#define ANSWER 42\n")],
        status: 6,
        says: "42 1.414",
        ..Program::default()
    }
    .prove(&TestContext::new());
}

/// Only traced: in a container the program is process 1, which cannot kill itself (`pid_namespaces(7)`).
#[test]
fn a_program_that_a_signal_ends() {
    let context = TestContext::new();
    let program = Program {
        argv: &["sh", "-c", "cat note.txt; kill -KILL $$"],
        inputs: &[("note.txt", "a note\n")],
        status: 137,
        says: "a note",
        form: "oci-archive",
        ..Program::default()
    };
    let native = program.native(&context);
    program.trace(&context, &native);
    assert!(context.path("image").exists(), "the image is built whatever the program ends with");
}
