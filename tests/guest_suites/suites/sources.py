"""Debian's source packages, fetched and unpacked with the host's apt and dpkg as any user, and building them.

Nothing is installed on the host, and its package lists are left alone: they seldom hold source packages, so lists of
our own are fetched into the cache folder. Builds run at the lowest priority.
"""
import os
import pathlib
import re
import subprocess

from suites.terminal import SuiteError, say

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEBIAN = f"[signed-by={KEYRING}] http://deb.debian.org/debian bookworm main"


class Sources:
    def __init__(self, cache):
        self.cache = pathlib.Path(cache)
        self.lists = self.cache / "apt"
        self.options = ["-o", f"Dir::State={self.lists}", "-o", f"Dir::Cache={self.lists}/cache",
                        "-o", f"Dir::Etc::sourcelist={self.cache}/sources.list", "-o", "Dir::Etc::sourceparts=-"]
        # As root, apt would drop to the user _apt, who may not write here.
        self.options += ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []

    def get(self, *words):
        if not (self.cache / "sources.list").exists():
            for part in ("lists/partial", "cache/archives/partial"):
                (self.lists / part).mkdir(parents=True, exist_ok=True)
            (self.cache / "sources.list").write_text(f"deb {DEBIAN}\ndeb-src {DEBIAN}\n", encoding="utf-8")
            say("fetching Debian's package lists")
            run(["apt-get", "-q", *self.options, "update"], self.cache)
        run(["apt-get", "-q", *self.options, *words], self.cache)

    def unpacked(self, package):
        """The folder of a source package with Debian's patches applied."""
        for _ in range(2):
            found = sorted(self.cache.glob(f"{package}-[0-9]*/"))
            if found:
                return found[0]
            say(f"fetching the source of {package}")
            self.get("source", package)
        raise SuiteError(f"the source package {package} did not unpack below {self.cache}")

    def version(self, package):
        [description] = self.cache.glob(f"{package}_*.dsc")
        return re.search(r"^Version: (.+)$", description.read_text(encoding="utf-8"), re.MULTILINE).group(1)

    def tool(self, name, *packages):
        """A program that the build needs: the host's, or out of `packages`, wrapped to find its libraries."""
        tools = self.cache / "tools"
        wrapper = tools / name
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=False).stdout
        if found:
            return found.strip()
        if not wrapper.exists():
            self.get("download", *packages)
            for package in packages:
                for file in self.cache.glob(f"{package}_*.deb"):
                    run(["dpkg-deb", "-x", str(file), str(tools)], self.cache)
            wrapper.write_text(f"#!/bin/sh\nLD_LIBRARY_PATH={tools}/usr/lib/x86_64-linux-gnu "
                               f'exec {tools}/usr/bin/{name} "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
        return str(wrapper)


def run(command, directory, environment=None):
    """Runs `command` and returns what it printed."""
    try:
        done = subprocess.run(command, cwd=directory, env={**os.environ, "LC_ALL": "C", **(environment or {})},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise SuiteError(f"{command[0]} is missing: install it (Debian's build-essential and dpkg-dev)") from error
    if done.returncode != 0:
        raise SuiteError(f"{' '.join(command)}: exit status {done.returncode}\n" +
                         "\n".join((done.stdout + done.stderr).splitlines()[-10:]))
    return done.stdout


def build(folder, commands, environment=None):
    """Runs the commands of a build in `folder`, once: a folder that holds a finished build is left alone."""
    complete = folder / "complete"
    if complete.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        say(f"in {folder}: {' '.join(command)}")
        run(["nice", "-n", "19", *command], folder, environment)
    complete.touch()
