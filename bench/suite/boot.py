"""Boot: the time from process start to the shell's first prompt on a terminal, with Tenon's own initramfs."""
import json
import os
import pty
import select
import signal
import subprocess
import time

from suite.terminal import BenchError, say

PROMPT = b"tenon:~# "
LIMIT_SECONDS = 300


def image_paths(tenon, flavour):
    """Kernel and initramfs out of Tenon's image cache, fetched where they are missing."""
    for attempt in range(2):
        listing = json.loads(subprocess.run([tenon, "image", "ls", "--json"], capture_output=True, check=True).stdout)
        kernels = [kernel for kernel in listing["kernels"] if kernel["flavour"] == flavour]
        if kernels and listing.get("initramfs") and os.path.exists(listing["initramfs"]):
            return kernels[0]["path"], listing["initramfs"]
        if attempt == 0:
            say(f"fetching the {flavour} kernel")
            subprocess.run([tenon, "image", "fetch", "--flavour", flavour], check=True)
    raise BenchError(f"no {flavour} kernel in Tenon's cache: see `tenon image ls`")


def seconds_to_prompt(command):
    """Starts `command` on a terminal of its own and returns the time to the shell's prompt; ends it after that."""
    start = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    seen = b""
    try:
        while PROMPT not in seen:
            left = LIMIT_SECONDS - (time.monotonic() - start)
            if left <= 0:
                raise BenchError(f"no prompt after {LIMIT_SECONDS} s: {' '.join(command)}\n{seen[-2000:]!r}")
            if not select.select([terminal], [], [], left)[0]:
                continue
            try:
                seen = (seen + os.read(terminal, 65536))[-65536:]
            except OSError as error:
                raise BenchError(f"ended before the prompt: {' '.join(command)}\n{seen[-2000:]!r}") from error
        return time.monotonic() - start
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
