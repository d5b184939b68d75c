//! The main promise, on many more programs: the same standard output and the same exit status natively, under
//! `minjail trace` and in `minjail run`. What containers add to that is shown in `programs.rs`.

mod support;

use std::path::{Path, PathBuf};

use support::program::Program;
use support::{TestContext, has, limited, needs_root, outcome_of};

/// Compiles `source` with `compiler` to `name` beside the working directory.
fn compile(context: &TestContext, compiler: &[&str], name: &str, source: &str) -> PathBuf {
    let directory = context.path("bin");
    fs_err::create_dir_all(&directory).expect("the test's directory can be written");
    let (code, program) = (directory.join(format!("{name}.c")), directory.join(name));
    fs_err::write(&code, source).expect("the test's directory can be written");
    let mut command = limited(compiler[0]);
    command.args(["-o", &support::text(&program), &support::text(&code)]).args(&compiler[1..]);
    outcome_of(command.current_dir(&directory)).success();
    program
}

fn prove(needs: &[&str], program: &Program<'_>) {
    if has(needs) {
        program.prove_in_the_jail(&TestContext::new());
    }
}

#[test]
fn ruby_with_gems() {
    let script = r#"
require "json"; require "digest"; require "set"; require "time"; require "yaml"; require "erb"; require "openssl"
puts JSON.generate({ sum: (1..10).sum, set: Set[1, 2].to_a }), Digest::SHA256.hexdigest("minjail")
puts YAML.dump({ "a" => [1, 2] }), Time.at(0).utc.iso8601, ERB.new("<%= 6 * 7 %>").result
puts "日本".encode("EUC-JP").bytes.inspect, OpenSSL::Digest.new("SHA1").hexdigest("x")
exit 4
"#;
    prove(
        &["ruby"],
        &Program {
            argv: &["ruby", "report.rb"],
            inputs: &[("report.rb", script)],
            status: 4,
            says: "1970-01-01T00:00:00Z\n42",
            ..Program::default()
        },
    );
}

#[test]
fn node_with_modules_of_its_own() {
    let main = r#"
const fs = require("fs"), path = require("path"), crypto = require("crypto"), zlib = require("zlib");
const greet = require("greeting");
console.log(greet("minjail"), crypto.createHash("sha256").update("x").digest("hex"));
console.log(zlib.gunzipSync(zlib.gzipSync("zipped")).toString(), new Intl.NumberFormat("de-DE").format(1234567.5));
console.log(fs.readdirSync(path.join(__dirname, "conf.d")).sort().join());
new Worker();
function Worker() {
  const { Worker } = require("worker_threads");
  const worker = new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
  worker.on("message", answer => { console.log(answer); process.exitCode = 5; });
}
"#;
    let inputs = [
        ("main.js", main),
        ("node_modules/greeting/package.json", r#"{ "name": "greeting", "main": "lib/index.js" }"#),
        ("node_modules/greeting/lib/index.js", "module.exports = name => `hello ${name}`;\n"),
        ("conf.d/10-a.json", "{}"),
        ("conf.d/20-b.json", "{}"),
    ];
    prove(
        &["node"],
        &Program {
            argv: &["node", "main.js"],
            inputs: &inputs,
            status: 5,
            says: "10-a.json,20-b.json\n42",
            ..Program::default()
        },
    );
}

#[test]
fn php_with_extensions() {
    let script = r#"<?php
require_once __DIR__ . "/lib/Greeting.php";
echo Greeting::to("minjail"), "\n", json_encode(["sum" => array_sum(range(1, 10))]), "\n";
echo hash("sha256", "x"), " ", date_create("@0")->setTimezone(new DateTimeZone("Asia/Tokyo"))->format("c"), "\n";
echo iconv("UTF-8", "EUC-JP//TRANSLIT", "日本") === "\xc6\xfc\xcb\xdc" ? "euc" : "?", "\n";
exit(6);
"#;
    let class = "<?php\nclass Greeting { static function to($name) { return \"hello $name\"; } }\n";
    prove(
        &["php"],
        &Program {
            argv: &["php", "main.php"],
            inputs: &[("main.php", script), ("lib/Greeting.php", class)],
            status: 6,
            says: "1970-01-01T09:00:00+09:00\neuc",
            ..Program::default()
        },
    );
}

#[test]
fn java_with_its_class_data_archive() {
    // A JVM also reads what other JVMs at hand keep in /tmp, which is gone when they end.
    // The archive of the JVM's own classes is mapped only if it fits the modules file; `-Xshare:on` insists on it.
    prove(&["java"], &Program { argv: &["java", "-Xshare:on", "-version"], ..Program::default() });
}

#[test]
fn java_runs_a_program_from_its_source() {
    let source = r#"
import java.nio.charset.Charset;
import java.security.MessageDigest;
import java.time.*;
import java.util.*;

public class Report {
    public static void main(String[] arguments) throws Exception {
        System.out.println(Base64.getEncoder().encodeToString(MessageDigest.getInstance("SHA-256").digest(new byte[3])));
        System.out.println(Instant.EPOCH.atZone(ZoneId.of("Asia/Tokyo")) + " " + Charset.forName("EUC-JP"));
        System.out.println(javax.net.ssl.SSLContext.getDefault().getProtocol());
        System.out.println(String.format(Locale.GERMANY, "%,.2f", 1234567.891));
        System.exit(arguments.length);
    }
}
"#;
    if !Path::new("/usr/bin/javac").exists() && !Path::new("/usr/lib/jvm/java-17-openjdk-amd64/bin/javac").exists() {
        return support::skip("no Java compiler is installed");
    }
    prove(
        &["java"],
        &Program {
            argv: &["java", "Report.java", "one", "two"],
            inputs: &[("Report.java", source)],
            status: 2,
            says: "1.234.567,89",
            ..Program::default()
        },
    );
}

#[test]
fn redis_server_and_client() {
    let script = r#"set -e
redis-server redis.conf > log &
sleep 0.1
for _ in $(seq 100); do redis-cli -s ./socket ping > pong 2>&1 && break; sleep 0.1; done
redis-cli -s ./socket set name minjail
redis-cli -s ./socket eval 'return redis.call("get", KEYS[1]) .. "!"' 1 name
redis-cli -s ./socket save
redis-cli -s ./socket shutdown nosave
wait
test -s dump.rdb
"#;
    prove(
        &["redis-server", "redis-cli"],
        &Program {
            argv: &["sh", "redis.sh"],
            inputs: &[("redis.sh", script), ("redis.conf", "port 0\nunixsocket ./socket\ndir .\n")],
            says: "OK\nminjail!\nOK\n",
            ..Program::default()
        },
    );
}

#[test]
fn imagemagick_draws_and_converts() {
    let script = "set -e
convert -size 40x30 gradient:red-blue -depth 8 a.png
convert a.png -resize 50% -quality 90 b.jpg
convert b.jpg -colorspace Gray c.gif
identify -format '%m %wx%h %[colorspace]\\n' a.png b.jpg c.gif
";
    prove(
        &["convert", "identify"],
        &Program {
            argv: &["sh", "draw.sh"],
            inputs: &[("draw.sh", script)],
            says: "JPEG 20x15 sRGB",
            ..Program::default()
        },
    );
}

#[test]
fn curl_asks_a_local_https_server() {
    let server = r#"
import http.server, ssl, subprocess, sys, threading
subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
    check=True, stderr=subprocess.DEVNULL)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello over TLS\n"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
threading.Thread(target=httpd.serve_forever, daemon=True).start()
url = f"https://localhost:{httpd.server_port}/"
good = subprocess.run(["curl", "-sS", "--cacert", "cert.pem", url])
untrusted = subprocess.run(["curl", "-s", url])
print(good.returncode, untrusted.returncode)
"#;
    prove(
        &["curl", "python3", "openssl"],
        &Program {
            argv: &["python3", "-u", "tls.py"],
            inputs: &[("tls.py", server)],
            says: "hello over TLS\n0 60\n",
            ..Program::default()
        },
    );
}

#[test]
fn getent_asks_every_service() {
    let script = "getent passwd root nobody; getent group tty; getent services ssh; \
                  getent protocols udp; getent networks loopback; getent rpc nfs; getent passwd nobody-of-this-name; \
                  echo $?\n";
    prove(
        &["getent"],
        &Program {
            argv: &["sh", "ask.sh"],
            inputs: &[("ask.sh", script)],
            says: "udp                   17 UDP\n",
            ..Program::default()
        },
    );
}

#[test]
fn man_renders_a_page() {
    let page = ".TH NOTE 1\n.SH NAME\nnote \\- say \\(lqnote\\(rq\n.SH DESCRIPTION\nIt \\fBsays\\fR it.\n";
    prove(
        &["man", "groff"],
        &Program {
            argv: &["man", "-l", "-P", "cat", "./note.1"],
            inputs: &[("note.1", page)],
            says: "It says it.",
            ..Program::default()
        },
    );
}

#[test]
fn gcc_builds_a_library_and_links_it() {
    let script = "set -e
gcc -O1 -fPIC -shared -o libanswer.so answer.c
gcc -o main main.c -L. -lanswer -Wl,-rpath,'$ORIGIN'
./main
objdump -p main | grep -c RUNPATH
";
    prove(
        &["gcc", "objdump"],
        &Program {
            argv: &["sh", "build.sh"],
            inputs: &[
                ("build.sh", script),
                ("answer.c", "int answer(void) { return 42; }\n"),
                (
                    "main.c",
                    "#include <stdio.h>\nint answer(void);\nint main(void) { return printf(\"%d\\n\", answer()) - 3; }\n",
                ),
            ],
            says: "42\n1\n",
            ..Program::default()
        },
    );
}

const WHO: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    printf("%d %d\n", getuid(), geteuid());
    FILE *file = fopen(argv[1], "r");
    if (!file) { perror("fopen"); return 1; }
    int first = fgetc(file);
    printf("%c\n", first);
    return 0;
}
"#;

#[test]
fn a_setuid_program() {
    if !needs_root("a setuid program") {
        return;
    }
    let context = TestContext::new();
    let who = compile(&context, &["gcc"], "who", WHO);
    let secret = context.path("bin/secret");
    fs_err::write(&secret, "s").expect("the test's directory can be written");
    outcome_of(limited("chown").args(["1234:1234", &support::text(&who), &support::text(&secret)])).success();
    outcome_of(limited("chmod").args(["4755", &support::text(&who)])).success();
    outcome_of(limited("chmod").args(["0600", &support::text(&secret)])).success();
    Program {
        argv: &["sh", "-c", "$WHO $NOTE"],
        environment: &[("WHO", &support::text(&who)), ("NOTE", &support::text(&secret))],
        says: "0 1234\ns\n",
        ..Program::default()
    }
    .prove_in_the_jail(&context);
}

#[test]
fn a_program_with_capabilities() {
    if !needs_root("setcap") || !has(&["setcap", "setpriv"]) {
        return;
    }
    let context = TestContext::new();
    let who = support::text(&compile(&context, &["gcc"], "who", WHO));
    outcome_of(limited("setcap").args(["cap_dac_override+ep", &who])).success();
    let secret = context.text("bin/secret");
    fs_err::write(&secret, "s").expect("the test's directory can be written");
    outcome_of(limited("chmod").args(["0600", &secret])).success();
    Program {
        argv: &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &who, &secret],
        says: "65534 65534\ns\n",
        ..Program::default()
    }
    .prove_in_the_jail(&context);
}

#[test]
fn a_plugin_by_origin() {
    if !has(&["gcc"]) {
        return;
    }
    let context = TestContext::new();
    let plugin =
        "#include <zlib.h>\nconst char *speak(void) { return zlibVersion()[0] == '1' ? \"plugin\" : \"?\"; }\n";
    let helper = "int helper(void) { return 7; }\n";
    let has_zlib = Path::new("/usr/include/zlib.h").exists();
    let plugin = if has_zlib {
        plugin
    } else {
        "int helper(void);\nconst char *speak(void) { return helper() == 7 ? \"plugin\" : \"?\"; }\n"
    };
    fs_err::create_dir_all(context.path("bin/plugins")).expect("the test's directory can be written");
    compile(&context, &["gcc", "-shared", "-fPIC"], "plugins/libhelper.so", helper);
    let needs = if has_zlib { "-lz" } else { "-lhelper" };
    compile(
        &context,
        &["gcc", "-shared", "-fPIC", "-Lplugins", needs, "-Wl,-rpath,$ORIGIN"],
        "plugins/speak.so",
        plugin,
    );
    let main = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *plugin = dlopen("$ORIGIN/plugins/speak.so", RTLD_NOW);
    if (!plugin) { puts(dlerror()); return 1; }
    puts(((const char *(*)(void))dlsym(plugin, "speak"))());
    return 3;
}
"#;
    let main = support::text(&compile(&context, &["gcc", "-ldl", "-Wl,-rpath,$ORIGIN"], "main", main));
    Program { argv: &[&main], status: 3, says: "plugin\n", ..Program::default() }.prove_in_the_jail(&context);
}

#[test]
fn a_chain_of_scripts() {
    let context = TestContext::new();
    let directory = context.path("bin");
    fs_err::create_dir_all(&directory).expect("the test's directory can be written");
    let at = |name: &str| support::text(&directory.join(name));
    let first = "#!/usr/bin/env sh\necho first \"$@\"\nexec cat \"$2\"\n".to_owned();
    for (name, text) in [
        ("first", first),
        ("second", format!("#!{} -x\nsecond\n", at("first"))),
        ("third", format!("#!{}\nthird\n", at("second"))),
    ] {
        fs_err::write(directory.join(name), text).expect("the test's directory can be written");
        outcome_of(limited("chmod").args(["755", &at(name)])).success();
    }
    Program { argv: &[&at("third"), "argument"], says: "first -x", ..Program::default() }.prove_in_the_jail(&context);
}

#[test]
fn a_program_that_rewrites_its_own_configuration() {
    let script = r#"
import os
count = int(open("app.conf").read())
with open("app.conf.new", "w") as new: new.write(str(count + 1))
os.replace("app.conf.new", "app.conf")
with open("app.log", "a") as log: log.write("run\n")
with open("state.txt", "r+") as state: state.truncate(2)
print(count, open("app.conf").read(), open("app.log").read(), open("state.txt").read())
"#;
    prove(
        &["python3"],
        &Program {
            argv: &["python3", "app.py"],
            inputs: &[("app.py", script), ("app.conf", "1"), ("app.log", "earlier\n"), ("state.txt", "state")],
            says: "1 2 earlier\nrun\n st\n",
            ..Program::default()
        },
    );
}

#[test]
fn a_program_that_reads_deletes_and_replaces() {
    let script = "set -e
cat note.txt; rm note.txt; test ! -e note.txt
echo new > note.txt; cat note.txt
mv other.txt note.txt; cat note.txt
mv dir away; cat away/deep.txt; mv away dir; cat dir/deep.txt
ln -sf elsewhere link; readlink link; rm -r gone; ls
";
    prove(
        &[],
        &Program {
            argv: &["sh", "replace.sh"],
            inputs: &[
                ("replace.sh", script),
                ("note.txt", "old\n"),
                ("other.txt", "other\n"),
                ("dir/deep.txt", "deep\n"),
                ("gone/a/b.txt", "b\n"),
            ],
            says: "old\nnew\nother\ndeep\ndeep\nelsewhere\ndir\nlink\nnote.txt\nreplace.sh\n",
            ..Program::default()
        },
    );
}

#[test]
fn globs_and_run_parts_over_a_directory() {
    let script = "set -e
for part in conf.d/*.conf; do . ./$part; done
echo conf.d/* 
chmod 755 parts/*
run-parts ./parts
run-parts --test ./parts
find conf.d -name '*.conf' | sort
";
    prove(
        &["run-parts", "find"],
        &Program {
            argv: &["sh", "parts.sh"],
            inputs: &[
                ("parts.sh", script),
                ("conf.d/10-a.conf", "echo a\n"),
                ("conf.d/20-b.conf", "echo b\n"),
                ("conf.d/README", "not read\n"),
                ("parts/one", "#!/bin/sh\necho one\n"),
                ("parts/two", "#!/usr/bin/perl\nprint \"two\\n\";\n"),
            ],
            says: "a\nb\nconf.d/10-a.conf conf.d/20-b.conf conf.d/README\none\ntwo\n",
            ..Program::default()
        },
    );
}

const HELLO: &str = r#"
#include <stdio.h>
#include <time.h>
int main(int argc, char **argv) {
    FILE *file = fopen(argv[1], "r");
    char line[80];
    if (!file || !fgets(line, sizeof line, file)) return 1;
    time_t zero = 0;
    printf("%zu bits, %s", sizeof(void *) * 8, line);
    return localtime(&zero)->tm_year == 70 ? 9 : 1;
}
"#;

#[test]
fn a_32_bit_program() {
    if !has(&["gcc", "/lib/ld-linux.so.2", "/usr/include/x86_64-linux-gnu/gnu/stubs-32.h"]) {
        return;
    }
    let context = TestContext::new();
    let hello = support::text(&compile(&context, &["gcc", "-m32"], "hello", HELLO));
    Program {
        argv: &[&hello, "note.txt"],
        inputs: &[("note.txt", "a note\n")],
        status: 9,
        says: "32 bits, a note",
        ..Program::default()
    }
    .prove_in_the_jail(&context);
}

#[test]
fn programs_of_another_c_library() {
    if !has(&["musl-gcc"]) {
        return;
    }
    for flag in ["-static", "-dynamic"] {
        let context = TestContext::new();
        let hello = support::text(&compile(&context, &["musl-gcc", flag], "hello", HELLO));
        Program {
            argv: &[&hello, "note.txt"],
            inputs: &[("note.txt", "a note\n")],
            status: 9,
            says: "64 bits, a note",
            ..Program::default()
        }
        .prove_in_the_jail(&context);
    }
}

#[test]
fn postgres_from_initdb_to_a_query() {
    let newest = fs_err::read_dir("/usr/lib/postgresql").ok().and_then(|found| {
        found
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("bin"))
            .filter(|bin| bin.join("initdb").exists())
            .max()
    });
    let Some(bin) = newest else { return support::skip("PostgreSQL is not installed") };
    if !needs_root("a server of another user") || !has(&["setpriv", "psql"]) {
        return;
    }
    let script = r#"set -e
chown 65534:65534 .
exec setpriv --reuid=65534 --regid=65534 --clear-groups sh ./database.sh
"#;
    let database = r#"set -e
umask 077
$BIN/initdb -D data -A trust -U admin > init.log
$BIN/pg_ctl -D data -w -l server.log -o "-c listen_addresses= -k $PWD" start > start.log
psql -h "$PWD" -U admin -Atc "create table t (n int); insert into t select generate_series(1, 10); select sum(n) from t" postgres
psql -h "$PWD" -U admin -Atc "set timezone = 'Asia/Tokyo'; select to_timestamp(0)" postgres
$BIN/pg_ctl -D data -m fast stop > stop.log
"#;
    Program {
        argv: &["sh", "as_nobody.sh"],
        inputs: &[("as_nobody.sh", script), ("database.sh", database)],
        environment: &[("BIN", &support::text(&bin))],
        says: "55\nSET\n1970-01-01 09:00:00+09\n",
        ..Program::default()
    }
    .prove_in_the_jail(&TestContext::new());
}

#[test]
fn a_terminal_program_asks_for_its_terminal() {
    prove(
        &["tput"],
        &Program {
            argv: &["sh", "-c", "tput -T xterm-256color colors; tput -T linux setaf 2 | od -An -c"],
            says: "256\n",
            ..Program::default()
        },
    );
}
