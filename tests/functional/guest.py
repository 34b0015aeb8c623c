"""What the functional tests share: running tenon with pipes, and under a pseudo-terminal with somebody typing."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

TENON = os.environ.get("TENON", "build/release/tenon")
# "interp", or with options of the engine: "jit:lockstep".
ENGINE, _, ENGINE_OPTIONS = os.environ.get("TENON_ENGINE", "auto").partition(":")
# What tenon may say it runs on.
ENGINE_NAMES = ("kvm", "jit", "interp") if ENGINE == "auto" else (ENGINE,)
# Only against hangs: a loaded host may take long, and no test asserts how long.
PATIENCE_S = 500


def arguments(*words):
    """The words after `tenon run --engine ENGINE`."""
    options = ["--engine-options", ENGINE_OPTIONS] if ENGINE_OPTIONS else []
    return [TENON, "run", "--engine", ENGINE, *options, *words]


def run(*words, stdin=b""):
    """Runs tenon on pipes; the result has returncode, stdout and stderr (bytes)."""
    return subprocess.run(arguments(*words), input=stdin, capture_output=True, timeout=PATIENCE_S)


def start(*words):
    """Starts tenon on pipes, for tests that signal it."""
    return subprocess.Popen(arguments(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def image(name):
    """Path of the cached kernel of a flavour, or of the 'initramfs'."""
    listing = json.loads(subprocess.run([TENON, "image", "ls", "--json"], check=True, capture_output=True).stdout)
    if name == "initramfs":
        return listing["initramfs"]
    return next(kernel["path"] for kernel in listing["kernels"] if kernel["flavour"] == name)


class TerminalRun:
    """tenon under a pseudo-terminal of its own, in a session of its own."""

    def __init__(self, *words, rows=24, columns=80):
        self.master, self.slave = pty.openpty()
        self.set_size(rows, columns)
        self.settings_before = termios.tcgetattr(self.slave)
        self.text = ""
        self.process = subprocess.Popen(arguments(*words), stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        start_new_session=True, preexec_fn=self._take_terminal)

    @staticmethod
    def _take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def set_size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def read_some(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def expect(self, text):
        """Reads until `text` has come; what came up to its end is forgotten and returned."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.text:
            if self.process.poll() is not None and not self.read_some(0):
                raise AssertionError(f"ended with {self.process.returncode} before {text!r}; got {self.text!r}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {text!r}; got {self.text!r}")
            self.read_some(1)
        end = self.text.index(text) + len(text)
        seen, self.text = self.text[:end], self.text[end:]
        return seen

    def wait(self):
        """The exit status; reads meanwhile, so that nobody blocks on a full terminal."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"does not end; got {self.text!r}")
            self.read_some(0.1)
        while self.read_some(0):
            pass
        return self.process.returncode

    def terminal_is_restored(self):
        return termios.tcgetattr(self.slave) == self.settings_before

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for fd in (self.master, self.slave):
            try:
                os.close(fd)
            except OSError:
                pass
