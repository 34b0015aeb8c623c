"""The benchmark's guest image: a root directory of programs out of Debian packages, as a tree and as an initramfs.

The tree holds what the workloads of suite/workloads.py name, the shared libraries that those need, Python's start-up
modules, and the two programs of bench/guest, built with the host's gcc. The archive is `newc` cpio, uncompressed,
written here: no root and no cpio program is needed. What changes from run to run (the plan and the data) is a second
archive that the kernel unpacks over the first.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

from suite import packages, workloads
from suite.terminal import BenchError, say

GUEST_SOURCES = pathlib.Path(__file__).resolve().parent.parent / "guest"
LOADER = "/lib64/ld-linux-x86-64.so.2"
LIBRARY_FOLDERS = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64"]
PYTHON = "/usr/bin/python3.11"
PYTHON_LIBRARY = "usr/lib/python3.11"
# What Python imports before `python3 -I -S script` runs the script, apart from the modules frozen into it.
PYTHON_MODULES = ["encodings/__init__.py", "encodings/aliases.py", "encodings/utf_8.py", "os.py"]
C_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-pthread"]
C_PROGRAMS = {
    "init": ["driver.c"],
    "bench/micro": ["micro.c", "micro_integer.c", "micro_vector.c", "micro_kernel.c"],
}
CHARACTER_DEVICE = 0o020600
DEVICES = {"dev/console": (5, 1), "dev/null": (1, 3)}


class GuestImage:
    """Paths of a built image, and what is in it."""

    def __init__(self, directory):
        self.root = directory / "root"
        self.archive = directory / "initramfs.cpio"
        self.versions_file = directory / "versions.json"

    @property
    def versions(self):
        return json.loads(self.versions_file.read_text(encoding="utf-8"))


def build(cache):
    """The image, built where it is missing or its sources have changed."""
    fetched = packages.fetch(cache)
    stamp = hashlib.sha256(pathlib.Path(__file__).read_bytes())
    stamp.update((GUEST_SOURCES / "compile_modules.py").read_bytes())
    stamp.update(repr(sorted((name, version) for name, (version, _) in fetched.items())).encode())
    stamp.update(repr(program_paths()).encode())
    for source in sorted(GUEST_SOURCES.glob("*.[ch]")):
        stamp.update(source.read_bytes())
    directory = cache / f"image-{stamp.hexdigest()[:12]}"
    image = GuestImage(directory)
    if image.versions_file.exists():
        return image
    for old in cache.glob("image-*"):
        shutil.rmtree(old)
    unpacked = cache / "unpacked"
    packages.unpack(fetched, unpacked)
    compiler = build_tree(unpacked, image.root)
    shutil.rmtree(unpacked)
    say("packing the guest image")
    write_archive(image.archive, image.root, DEVICES)
    versions = {name: version for name, (version, _) in fetched.items()}
    image.versions_file.write_text(json.dumps({"packages": versions, "compiler": compiler}, indent=2), encoding="utf-8")
    say(f"guest image: {image.archive.stat().st_size / 1e6:.0f} MB, {len(fetched)} packages")
    return image


def program_paths():
    """Programs that the workloads start, apart from our own."""
    return sorted({workload.arguments[0] for workload in workloads.WORKLOADS} - {"/bench/micro"})


# ---- the tree --------------------------------------------------------------------------------------------------------

def build_tree(unpacked, root):
    for folder in ("bench", "data", "dev", "proc", "tmp", "bin"):
        (root / folder).mkdir(parents=True)
    copied = set()
    for program in program_paths():
        copy_with_libraries(unpacked, root, program.lstrip("/"), copied)
    for module in PYTHON_MODULES:
        copy(unpacked / PYTHON_LIBRARY / module, root / PYTHON_LIBRARY / module)
    compile_python_modules(root)
    return compile_programs(root)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)  # follows links: a library is stored under the name that programs ask for


def copy_with_libraries(unpacked, root, name, copied):
    if name in copied:
        return
    copied.add(name)
    source = unpacked / name
    if not source.exists():
        raise BenchError(f"/{name} is in none of the packages {', '.join(packages.PROGRAM_PACKAGES)}")
    copy(source, root / name)
    listing = packages.run(["readelf", "-dl", str(source)], ".")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", listing)
    if re.search(r"interpreter: " + LOADER, listing):
        copy(unpacked / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", root / LOADER.lstrip("/"))
    for library in needed:
        found = [folder for folder in LIBRARY_FOLDERS if (unpacked / folder / library).exists()]
        if not found:
            raise BenchError(f"{library}, which /{name} needs, is in none of the fetched packages")
        copy_with_libraries(unpacked, root, f"{found[0]}/{library}", copied)


def compile_python_modules(root):
    """Byte code beside Python's start-up modules, made by the image's own Python, so that no guest has to make it."""
    libraries = ":".join(str(root / folder) for folder in LIBRARY_FOLDERS)
    modules = [f"{PYTHON_LIBRARY}/{module}" for module in PYTHON_MODULES]
    packages.run([str(root / LOADER.lstrip("/")), "--library-path", libraries, str(root / PYTHON.lstrip("/")), "-I",
                  "-S", str(GUEST_SOURCES / "compile_modules.py"), str(root), *modules], ".")


def compile_programs(root):
    compiler = os.environ.get("CC", "gcc")
    for name, sources in C_PROGRAMS.items():
        say(f"compiling {', '.join(sources)}")
        packages.run([compiler, *C_FLAGS, "-o", str(root / name), *(str(GUEST_SOURCES / source) for source in sources),
                      "-lm"], ".")
    return packages.run([compiler, "--version"], ".").splitlines()[0]


# ---- the archive -----------------------------------------------------------------------------------------------------

def write_archive(path, tree, devices):
    """All files below `tree` in one newc archive (the kernel's Documentation/driver-api/early-userspace)."""
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as out:
        for file in sorted(tree.rglob("*")):
            content = b"" if file.is_dir() else file.read_bytes()
            write_entry(out, str(file.relative_to(tree)), file.stat().st_mode, content)
        for name, numbers in devices.items():
            write_entry(out, name, CHARACTER_DEVICE, b"", numbers)
        write_entry(out, "TRAILER!!!", 0, b"")
    partial.rename(path)


def write_entry(out, name, mode, content, device=(0, 0)):
    fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    out.write(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))


def with_data(image, data, target):
    """The initramfs of one invocation: the image, then the folder `data` as /data (with the plan in it)."""
    small = target.with_suffix(".data")
    with open(small, "wb") as out:
        for file in sorted(data.iterdir()):
            write_entry(out, f"data/{file.name}", 0o100644, file.read_bytes())
        write_entry(out, "TRAILER!!!", 0, b"")
    with open(target, "wb") as out:
        for part in (image.archive, small):
            with open(part, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
            out.write(bytes(-out.tell() % 512))
    small.unlink()
    return target
