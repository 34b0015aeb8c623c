"""The guest's initramfs: Tenon's own (init and busybox), then an archive of the suite's programs, their libraries and
their data, each at the path it has on the host, so that programs that know their place find it in the guest too.

The archive is `newc` cpio, written here: neither root nor a cpio program is needed.
"""
import os
import pathlib
import re
import shutil
import stat

from suites.sources import run

LIBRARY = re.compile(r"^\s+(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


class Archive:
    def __init__(self, out):
        self.out = out
        self.names = set()

    def add(self, name, mode, content=b""):
        name = name.lstrip("/")
        if name in self.names:
            return
        self.names.add(name)
        parent = os.path.dirname(name)
        if parent:
            self.add(parent, stat.S_IFDIR | 0o755)
        fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + os.fsencode(name) + b"\0"
        self.out.write(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))

    def add_file(self, path):
        """A file or link of the host, with what a link leads to under the link's name."""
        path = pathlib.Path(path)
        self.add(str(path), stat.S_IFREG | (path.stat().st_mode & 0o777), path.read_bytes())

    def add_tree(self, folder, is_wanted):
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file() and is_wanted(path):
                self.add_file(path)
            elif path.is_dir() and is_wanted(path):
                self.add(str(path), stat.S_IFDIR | 0o755)


def libraries_of(programs, environment):
    """Paths of all shared libraries that `programs` load, and their loader."""
    found = set()
    for start in range(0, len(programs), 100):
        found.update(LIBRARY.findall(run(["ldd", *programs[start:start + 100]], "/", environment)))
    return sorted(found)


def write(target, tenon_initramfs, suite, programs, own_files):
    """`own_files`: {path in the guest: content} of init, the plan and the program that runs it."""
    executables = sorted({program.arguments[0] for program in programs})
    with open(target, "wb") as out:
        with open(tenon_initramfs, "rb") as initramfs:
            shutil.copyfileobj(initramfs, out, 1 << 20)
        out.write(bytes(-out.tell() % 512))
        archive = Archive(out)
        for name, content in own_files.items():
            archive.add(name, stat.S_IFREG | 0o755, content)
        for path in executables:
            archive.add_file(path)
        for folder, is_wanted in suite.files():
            archive.add_tree(folder, is_wanted)
        for path in libraries_of(sorted(f"/{name}" for name in archive.names if is_elf(f"/{name}")), suite.environment):
            archive.add_file(path)
        archive.add("TRAILER!!!", 0)
    return target


def is_elf(path):
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"
