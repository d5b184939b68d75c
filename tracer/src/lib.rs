//! ptrace and seccomp: every path that a program hands to the kernel, as events.
