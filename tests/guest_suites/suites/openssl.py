"""OpenSSL's own test suite: its Perl recipes (test/recipes), which run test programs and the openssl program and print
one line for each check they make.

Left out: recipes that need what a guest or a plain build has not (other projects' sources, a FIPS module, `nm`),
fuzzers over collections of files, and those that ask for the kernel's crypto sockets.
"""
import pathlib
import re
import subprocess

from suites.program import Program
from suites.sources import build
from suites.terminal import SuiteError

JOBS = "-j2"
LEFT_OUT = re.compile(r"^00-|^95-|fuzz|fips|afalg|acvp|external|symbol_presence")
# Of both trees the recipes read test data, certificates, configurations, headers and lists of symbols.
SOURCE_FOLDERS = ["Configurations", "apps", "crypto/err", "crypto/objects", "external/perl", "include", "test", "util"]
BUILD_FOLDERS = ["apps", "engines", "include", "providers", "test", "util"]
NOT_NEEDED = {".o", ".d", ".a", ".c", ".pod"}
PERL = "/usr/bin/perl"


class OpenSsl:
    name = "openssl"
    memory = "4G"
    limit_seconds = 1800

    def __init__(self, sources):
        self.source = sources.unpacked("openssl")
        self.version = sources.version("openssl")
        self.folder = sources.cache / "build/openssl"
        self.environment = {
            "PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/tmp", "PERL": PERL, "EXE_EXT": "",
            "SRCTOP": self.source, "BLDTOP": self.folder, "PERL5LIB": self.source / "util/perl",
            "OPENSSL_CONF": self.source / "apps/openssl.cnf", "OPENSSL_CONF_INCLUDE": self.folder / "test",
            "OPENSSL_MODULES": self.folder / "providers", "OPENSSL_ENGINES": self.folder / "engines",
            "CTLOG_FILE": self.source / "test/ct/log_list.cnf", "LD_LIBRARY_PATH": self.folder,
        }

    def build(self):
        build(self.folder, [[str(self.source / "Configure"), "linux-x86_64", "--libdir=lib"],
                            ["make", JOBS, "build_sw"]])

    def programs(self):
        recipes = sorted((self.source / "test/recipes").glob("*.t"))
        return [Program(recipe.stem, "tap", self.limit_seconds, [PERL, str(recipe)])
                for recipe in recipes if not LEFT_OUT.search(recipe.name)]

    def files(self):
        trees = [(self.source / folder, is_data) for folder in SOURCE_FOLDERS]
        trees += [(self.folder / folder, is_data) for folder in BUILD_FOLDERS]
        trees += [(folder, lambda path: path.suffix != ".pod") for folder in perl_folders()]
        trees += [(self.source, lambda path: path.parent == self.source and path.is_file()),
                  (self.folder, lambda path: path.parent == self.folder and path.is_file() and path.suffix != ".a")]
        return trees


def perl_folders():
    """Where the host's Perl keeps its modules."""
    words = [PERL, "-MTest::More", "-e", r'print "$_\n" for @INC']
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SuiteError("OpenSSL's recipes need Perl with its modules: install Debian's package perl")
    return [folder for folder in done.stdout.splitlines() if pathlib.Path(folder).is_dir()]


def is_data(path):
    return path.suffix not in NOT_NEEDED
