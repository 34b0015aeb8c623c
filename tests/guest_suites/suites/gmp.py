"""GMP's own test suite: some 200 programs that compare the library's assembly routines with plain C ones.

Built twice. With --enable-fat the library chooses its routines by CPUID at run time, in the guest as on the host; it
knows no CPU by name that is younger than Skylake and takes the plainest routines there. So it is also built for Skylake
alone, whose routines are full of MULX, ADCX and ADOX; that one runs where the host has these.
"""
from suites.program import Program, is_elf_program
from suites.sources import build

# The archive is free of GMP's manual, whose licence Debian rejects, and configure asks for its Makefile.
MANUAL_MAKEFILE = "all check clean install:\n"
JOBS = "-j2"


class Gmp:
    name = "gmp"
    variant = ["--enable-fat"]
    memory = "2G"
    limit_seconds = 900
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

    def __init__(self, sources):
        self.source = sources.unpacked("gmp")
        self.version = sources.version("gmp")
        self.folder = sources.cache / "build" / self.name
        self.m4 = sources.tool("m4", "m4", "libsigsegv2")

    def build(self):
        manual = self.source / "doc"
        manual.mkdir(exist_ok=True)
        (manual / "Makefile.in").write_text(MANUAL_MAKEFILE, encoding="utf-8")
        no_regeneration = [f"{name}=:" for name in ("ACLOCAL", "AUTOCONF", "AUTOMAKE", "AUTOHEADER")]
        build(self.folder, [
            [str(self.source / "configure"), *self.variant, "--enable-cxx", "--enable-shared", "--disable-static"],
            ["make", JOBS, *no_regeneration],
            ["make", JOBS, *no_regeneration, "check", "TESTS="],
        ], {"M4": self.m4})

    def programs(self):
        tests = self.folder / "tests"
        found = sorted(path for path in tests.rglob("*") if is_elf_program(path))
        return [Program(str(path.relative_to(tests)), "all", self.limit_seconds, [str(path)])
                for path in found if path.parent.name not in (".libs", "devel")]

    def files(self):
        """What the programs need in the guest apart from themselves and their libraries."""
        return []


class GmpSkylake(Gmp):
    name = "gmp-skylake"
    variant = ["--build=skylake-pc-linux-gnu"]
