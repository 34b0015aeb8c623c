"""One program of a suite, the plan that guest/run_programs.c reads, and what it prints."""
import dataclasses
import os
import re

RESULT = re.compile(r"^RESULT (\S+) (\w+) (\d+) ([0-9a-f]{16}) (\d+) (\d+) ([0-9.]+) ([0-9.]+)$")
SAID = re.compile(r"^SAID (\S+) ?(.*)$")


@dataclasses.dataclass
class Program:
    name: str
    output: str  # "all" or "tap": which lines of its output are compared
    limit_seconds: float
    arguments: list  # the first is the program's path


@dataclasses.dataclass
class Result:
    how: str  # exit, signal, timeout, or "missing" where the run ended before
    code: int = 0
    checksum: str = ""  # of the lines that are compared
    lines: int = 0
    passed: int = 0  # lines that say "ok"
    seconds: float = 0
    cpu_seconds: float = 0
    said: list = dataclasses.field(default_factory=list)

    def is_good(self):
        return self.how == "exit" and self.code in (0, 77)  # 77: the suite's own word for "not applicable here"

    def same_as(self, other):
        return (self.how, self.code, self.checksum) == (other.how, other.code, other.checksum)

    def outcome(self):
        return self.how if self.how in ("timeout", "missing") else f"{self.how} {self.code}"


class Results:
    """Takes the lines of run_programs."""

    def __init__(self):
        self.by_name = {}
        self.is_complete = False
        self.said = {}
        self.seconds = 0
        self.processor_seconds = 0

    def take(self, line):
        found = RESULT.match(line)
        if found:
            name, how, code, checksum, lines, passed, seconds, cpu_seconds = found.groups()
            self.by_name[name] = Result(how, int(code), checksum, int(lines), int(passed), float(seconds),
                                        float(cpu_seconds), self.said.pop(name, []))
            return name
        found = SAID.match(line)
        if found:
            self.said.setdefault(found.group(1), []).append(found.group(2))
        elif line == "DONE":
            self.is_complete = True
        return None

    def get(self, name):
        return self.by_name.get(name) or Result("missing")


def write_plan(path, environment, programs):
    lines = [f"={name}={value}" for name, value in environment.items()]
    lines += ["\t".join([program.name, program.output, str(program.limit_seconds), *program.arguments])
              for program in programs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def is_elf_program(path):
    if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK) or path.suffix == ".so":
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"
