"""Debian packages for the benchmark's guest: resolved, fetched and unpacked with the host's apt and dpkg, as any user.

Nothing is installed on the host. Where the host's package lists are missing or point to versions that are gone, fresh
lists are fetched into the cache folder.
"""
import os
import pathlib
import shutil
import subprocess

from suite.terminal import BenchError, say

# What the workloads run. Libraries follow from the packages' dependencies.
PROGRAM_PACKAGES = ["busybox-static", "xz-utils", "python3.11-minimal", "sqlite3", "cpp-12", "openssl"]
# Dependencies that serve an installation and not a running program.
LEFT_OUT = {"dpkg", "install-info", "tar", "debconf", "media-types", "readline-common", "gcc-12-base", "mime-support"}


class Apt:
    """apt with the host's package lists, or with lists of our own below `directory`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.options = []

    def use_own_lists(self):
        state = self.directory / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        self.options = ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={state}/cache"]
        say("fetching Debian's package lists")
        self.get(["update"], self.directory)

    def get(self, arguments, directory):
        # As root, apt would drop to the user _apt, who may not write here.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        return run(["apt-get", "-q", *self.options, *sandbox, *arguments], directory)

    def dependencies(self, packages):
        """`packages` and all that they depend on, sorted."""
        found, queue = set(), list(packages)
        kinds = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
        while queue:
            output = run(["apt-cache", *self.options, "depends", *kinds, *queue], self.directory)
            found.update(queue)
            # "  Depends: libc6", "  PreDepends: libc6"; "  |Depends:" starts a choice, whose last member is taken;
            # a virtual package stands in angle brackets.
            named = {line.split(":", 1)[1].strip() for line in output.splitlines()
                     if line.startswith(("  Depends:", "  PreDepends:"))}
            queue = sorted(name for name in named - found - LEFT_OUT if not name.startswith("<"))
        return sorted(found)


def run(command, directory):
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is missing: the guest image is made of Debian packages, so the benchmark runs "
                         "on Debian and what derives from it") from error
    if done.returncode != 0:
        reason = [line for line in done.stderr.splitlines() if line.startswith("E: ")] or done.stderr.splitlines()[-3:]
        raise BenchError(f"{' '.join(command)}: {'; '.join(reason) or 'no message'}")
    return done.stdout


def fetch(directory):
    """Downloads what is missing of all packages into `directory`/packages; returns {name: (version, file)}."""
    directory = pathlib.Path(directory)
    store = directory / "packages"
    store.mkdir(parents=True, exist_ok=True)
    if (store / "complete").exists():
        return stored_packages(store)
    for left in store.iterdir():
        left.unlink()
    apt = Apt(directory)
    try:
        fetch_all(apt, store)
    except BenchError as error:
        say(f"with the host's package lists: {error}")
        apt.use_own_lists()
        fetch_all(apt, store)
    (store / "complete").touch()
    return stored_packages(store)


def fetch_all(apt, store):
    names = apt.dependencies(PROGRAM_PACKAGES)
    for number, name in enumerate(names, 1):
        say(f"fetching package {number} of {len(names)}: {name}")
        if not any(store.glob(f"{name}_*.deb")):
            apt.get(["download", name], store)


def stored_packages(store):
    packages = {}
    for file in sorted(store.glob("*.deb")):
        name, version = run(["dpkg-deb", "--show", "--showformat", "${Package} ${Version}", str(file)], store).split()
        packages[name] = (version, file)
    return packages


def unpack(packages, directory):
    """Unpacks all packages over each other into `directory`, which is emptied first."""
    shutil.rmtree(directory, ignore_errors=True)
    pathlib.Path(directory).mkdir(parents=True)
    say(f"unpacking {len(packages)} packages")
    for _, file in packages.values():
        run(["dpkg-deb", "-x", str(file), str(directory)], ".")
