#!/usr/bin/env python3
"""What a plain copy after strace takes: the paths, one a line, each file, the links to it and the directories above.

    strace -f -y -qq -s 4096 -e trace=%file -o LOG CMD... ; copied.py LOG DIRECTORY [looked]

That is every file that was opened or executed with success and is there (DIRECTORY, where CMD ran, is to be as it was
before), with the libraries that ldd names for what was executed, and the interpreters of scripts. Nothing that was only
looked at, unless the last word says so, and nothing of /dev, /proc and /sys.
"""
import os
import re
import subprocess
import sys

CALL = re.compile(rb"^(\d+) +(\w+)\((.*)\) += (\d+)(?:<(.*)>)?")
PATH = re.compile(rb'^(?:(?:AT_FDCWD|\d+)<((?:[^<>\\]|\\.)*)>, )?"((?:[^"\\]|\\.)*)"')


def calls(log):
    """Each call as one line: strace cuts what others come between."""
    pending = {}
    for line in log:
        line = line.rstrip(b"\n")
        pid = line.split(b" ", 1)[0]
        if line.endswith(b"<unfinished ...>"):
            pending[pid] = line[: -len(b"<unfinished ...>")].rstrip()
        elif b" resumed>" in line:
            yield pending.pop(pid, b"") + line.split(b" resumed>", 1)[1]
        else:
            yield line


OPENS = {b"open", b"openat", b"openat2", b"creat", b"execve", b"execveat"}
LOOKS = {b"stat", b"lstat", b"newfstatat", b"statx", b"access", b"faccessat", b"faccessat2"}


def plain(text):
    return text.decode("unicode_escape").encode("latin-1")


def used(log, directory, wanted):
    """The spelled and the real paths of what was opened or executed, and what was executed."""
    opened, executed = set(), set()
    for line in calls(log):
        match = CALL.match(line)
        if not match:
            continue
        _, name, arguments, _, real = match.groups()
        path = PATH.match(arguments)
        if not path or name not in wanted:
            continue
        base, spelled = (plain(part or b"") for part in path.groups())
        spelled = os.path.join(directory, base, spelled)
        if name.startswith(b"exec"):
            executed.add(spelled)
        elif os.path.exists(spelled):
            opened.add(spelled)
        if real and real.startswith(b"/"):
            opened.add(plain(real))
    return opened, executed


def follow(path, found):
    """Adds a path with every link on its way; returns its end."""
    for _ in range(40):
        at = b"/"
        names = [name for name in path.split(b"/") if name and name != b"."]
        for index, name in enumerate(names):
            found.add(at)
            if name == b"..":
                at = os.path.dirname(at)
                continue
            at = os.path.join(at, name)
            if os.path.islink(at):
                found.add(at)
                path = os.path.join(os.path.dirname(at), os.readlink(at), *names[index + 1:])
                break
        else:
            found.add(at)
            return at
    raise OSError(f"too many links: {path}")


def libraries(program):
    output = subprocess.run([b"ldd", program], capture_output=True, check=False).stdout
    for line in output.splitlines():
        path = re.search(rb"(/\S+) \(0x", line)
        if path:
            yield path.group(1)


def main(log, directory, looked=None):
    opened, executed = used(open(log, "rb"), os.fsencode(directory), OPENS | LOOKS if looked else OPENS)
    found, todo, done = set(), list(executed), set()
    while todo:
        program = todo.pop()
        if program in done or not os.path.isfile(program):
            continue
        done.add(program)
        with open(program, "rb") as file:
            head = file.read(256)
        if head.startswith(b"#!"):
            todo.append(head[2:].split(b"\n")[0].split()[0])
        todo_libraries = libraries(program) if head.startswith(b"\x7fELF") else ()
        opened.update(todo_libraries)
    for path in opened | done:
        if os.path.isfile(path) and not path.startswith((b"/proc/", b"/sys/", b"/dev/")):
            follow(path, found)
    sys.stdout.buffer.write(b"".join(path + b"\n" for path in sorted(found)))


main(*sys.argv[1:])
