"""The table of workloads: what runs in the guest, what its figure means, and in which class it counts.

One place to add a workload: a row here, and a file in bench/guest/ where it needs one.
"""
import dataclasses

# Geometric means are taken over a class and over all rows.
CLASSES = {
    "integer": "integer programs",
    "micro": "integer micro benchmarks",
    "kernel": "kernel work",
    "fp-simd-crypto": "floating point, SIMD, crypto",
    "smp": "two compilers at once",
    "boot": "boot",
}
RUNNING_ORDER = ("kernel", "fp-simd-crypto", "integer", "micro", "smp")


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    group: str  # one of CLASSES
    title: str
    kind: str  # how the driver runs it (bench/guest/driver.c)
    arguments: list
    repeats: int = 1  # in one boot; the figure of a boot is their median
    count: int | str = 1  # of programs in one repeat


def higher_is_better(unit):
    return unit in ("B/s", "op/s")


BUSYBOX = "/bin/busybox"
CC1 = ["/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "-fpreprocessed", "-O2", "-o", "-"]
OPENSSL = ["/usr/bin/openssl", "speed", "-mr", "-elapsed", "-seconds", "1"]
MICRO_MILLISECONDS = 100
MICRO_REPEATS = 3


def micro(name, group, title):
    return Workload(name, group, title, "relay", ["/bench/micro", name, "@MICRO_MS@", str(MICRO_REPEATS)])


def openssl(name, title, *arguments):
    return Workload(name, "fp-simd-crypto", title, "openssl", [*OPENSSL, *arguments])


# @NAME@ is replaced by a number that follows --scale (guest_data.numbers).
# cc1 runs once in a boot: translating a large program for the first time is a part of what it measures.
WORKLOADS = [
    Workload("sh", "integer", "busybox sh loop", "time", [BUSYBOX, "sh", "/data/loop.sh", "@SH_ROUNDS@"], 3),
    Workload("gzip", "integer", "busybox gzip, 4.5 MB", "time", [BUSYBOX, "gzip", "-c", "/data/text"], 3),
    Workload("xz", "integer", "xz -3, 1.5 MB", "time", ["/usr/bin/xz", "-3", "-T1", "-c", "/data/short_text"], 3),
    Workload("sha256sum", "integer", "busybox sha256sum, 18 MB", "time",
             [BUSYBOX, "sha256sum", *["/data/text"] * 4], 3),
    Workload("python3", "integer", "python3 script", "time",
             ["/usr/bin/python3.11", "-I", "-S", "/data/script.py", "@PYTHON_ROUNDS@"], 3),
    Workload("sqlite3", "integer", "sqlite3 in memory", "time",
             ["/usr/bin/sqlite3", "-init", "/data/script.sql", ":memory:", ""], 3),
    Workload("cc1", "integer", "cc1 -O2", "time", [*CC1, "/data/source.c"]),

    micro("fib", "micro", "recursive calls"),
    micro("qsort", "micro", "qsort with a callback"),
    micro("interp", "micro", "bytecode interpreter"),
    micro("sieve", "micro", "sieve of 4 MiB"),
    micro("collatz", "micro", "data-dependent branches"),
    micro("chase", "micro", "pointer chase over 64 MiB"),
    micro("clock_gettime", "micro", "clock_gettime"),
    micro("rdtsc", "micro", "rdtsc"),

    Workload("spawn", "kernel", "200 times fork, exec of busybox true", "time", [BUSYBOX, "true"], 3, "@SPAWNS@"),
    Workload("spawn_dynamic", "kernel", "50 times fork, exec of xz --version (shared libraries)", "time",
             ["/usr/bin/xz", "--version"], 3, 50),
    micro("getppid", "kernel", "system call (getppid)"),
    micro("page_fault", "kernel", "page fault, anonymous"),
    micro("mmap", "kernel", "mmap, touch 2 pages, munmap"),
    micro("fork_exit", "kernel", "fork, exit"),
    micro("fork_exec", "kernel", "fork, exec of a static program"),
    micro("pipe_ping_pong", "kernel", "pipe ping-pong of two processes"),
    micro("context_switch", "kernel", "futex hand-over of two threads"),
    micro("pipe_64k", "kernel", "pipe, write and read 64 KiB"),

    openssl("aes-128-gcm", "openssl AES-128-GCM, 16 KiB", "-bytes", "16384", "-evp", "aes-128-gcm"),
    openssl("sha256", "openssl SHA-256, 16 KiB", "-bytes", "16384", "-evp", "sha256"),
    openssl("rsa2048", "openssl RSA-2048 signature", "rsa2048"),
    micro("nbody", "fp-simd-crypto", "n-body, double"),
    micro("x87", "fp-simd-crypto", "x87 arithmetic"),
    micro("sse2", "fp-simd-crypto", "SSE2 integers"),
    micro("avx2_fma", "fp-simd-crypto", "AVX2 FMA"),
    micro("memcpy", "fp-simd-crypto", "memcpy 1 MiB"),
    micro("strlen", "fp-simd-crypto", "strlen of 64"),

    # As `make -j2`: its figures at one and at two vCPUs tell what the second one is worth.
    Workload("make-j2", "smp", "two cc1 -O2 at once", "parallel", [*CC1, "/data/source.c"], 1, 2),
]

BY_NAME = {workload.name: workload for workload in WORKLOADS}
