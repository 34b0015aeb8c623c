"""What the programs work on: made from nothing, the same bytes on every machine, sized by one scale factor."""
import bisect
import hashlib
import itertools
import pathlib
import random
import shutil

from suite import workloads
from suite.terminal import say

GUEST_SOURCES = pathlib.Path(__file__).resolve().parent.parent / "guest"
TEXT_BYTES = 4_500_000
SHORT_TEXT_BYTES = 1_500_000
SQL_ROWS = 15000
C_FUNCTIONS = 12
C_DECLARATIONS = 400


def numbers(scale):
    """The numbers that stand behind @NAME@ in arguments and scripts."""
    def sized(full, least=1):
        return str(max(least, round(full * scale)))

    return {
        "@SH_ROUNDS@": sized(50_000), "@PYTHON_ROUNDS@": sized(8), "@SPAWNS@": sized(200),
        "@ROWS@": sized(SQL_ROWS, 100), "@MICRO_MS@": sized(workloads.MICRO_MILLISECONDS, 20),
    }


def replaced(text, scale):
    for name, number in numbers(scale).items():
        text = text.replace(name, number)
    return text


# random.Random.random() is the one generator whose sequence Python promises to keep; all else follows from it.
def make_words(chance, count):
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(letters))))

    def letter():
        return letters[bisect.bisect(weights, chance.random() * weights[-1])]

    return ["".join(letter() for _ in range(2 + int(chance.random() * chance.random() * 12))) for _ in range(count)]


def make_text(size):
    """English-like for a compressor: few frequent words, many rare ones, phrases that come back."""
    chance = random.Random(20260101)
    words = make_words(chance, 12000)
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    text, length, column = [], 0, 0
    while length < size:
        if len(text) > 1000 and chance.random() < 0.15:
            start = len(text) - 3 - int(chance.random() * 900)
            piece = text[start:start + 3]
        else:
            piece = [words[bisect.bisect(weights, chance.random() * weights[-1])] + " "]
            if chance.random() < 0.1:
                piece[0] = piece[0].rstrip() + (". " if chance.random() < 0.4 else ", ")
        text += piece
        added = sum(map(len, piece))
        length += added
        column += added
        if column > 76:
            text.append("\n")
            length += 1
            column = 0
    return "".join(text).encode()[:size]


class CSource:
    """A C file as compilers see them: a long run of declarations, then functions full of all that the language has."""

    HEAD = """struct item { int key; unsigned flags; long weight; double share; struct item *next; char name[24]; };
extern int external(int, const char *);
extern struct item *find_item(struct item *, int);
static int table[1024];
static const char *const labels[] = {"alpha", "beta", "gamma", "delta"};
"""
    OPERATIONS = ["({} + {})", "({} - {})", "({} * {})", "({} ^ {})", "({} & {})", "({} | {})", "({} << ({} & 7))",
                  "({} >> ({} & 15))", "({} < {})", "({} / ({} | 1))", "({} == {})", "({} % ({} | 3))"]
    FIELD_TYPES = ["int", "unsigned long", "const char *", "double", "struct item *"]

    def __init__(self):
        self.chance = random.Random(20260102)
        self.known = []

    def pick(self, choices):
        return choices[int(self.chance.random() * len(choices))]

    def expression(self, depth):
        if depth == 0:
            return self.pick(["a", "b", "c", "n", "i", "p->key", "(int)p->flags", "table[i & 1023]", "table[a & 255]",
                              str(int(self.chance.random() * 1000)), "(int)p->weight"])
        left, right = self.expression(depth - 1), self.expression(depth - 1)
        return self.pick(self.OPERATIONS).format(left, right)

    def statement(self, depth, indent):
        pad = "  " * indent
        kind = int(self.chance.random() * 10) if depth > 0 else int(self.chance.random() * 4)
        if kind < 2:
            return f"{pad}{self.pick('abc')} {self.pick(['=', '+=', '^=', '-='])} {self.expression(2)};\n"
        if kind == 2:
            target = self.pick(["table[a & 1023]", "table[(b + i) & 1023]", "p->key", "p->weight"])
            return f"{pad}{target} = {self.expression(2)};\n"
        if kind == 3:
            return f"{pad}p->share = p->share * {1 + self.chance.random():.4f} + c;\n"
        if kind in (4, 5):
            return (f"{pad}if ({self.expression(2)}) {{\n{self.block(depth - 1, indent + 1)}{pad}}} else {{\n"
                    f"{self.block(depth - 1, indent + 1)}{pad}}}\n")
        if kind == 6:
            return f"{pad}for (i = 0; i < (n & 63); ++i) {{\n{self.block(depth - 1, indent + 1)}{pad}}}\n"
        if kind == 7:
            cases = "".join(f"{pad}case {value}:\n{self.block(0, indent + 1)}{pad}  break;\n" for value in range(6))
            return f"{pad}switch ({self.pick('abc')} & 7) {{\n{cases}{pad}default: c = -c;\n{pad}}}\n"
        if kind == 8 and self.known:
            return f"{pad}b += {self.pick(self.known[-8:])}(p, {self.expression(1)}, {self.expression(1)});\n"
        return f"{pad}if (p->next && external({self.expression(1)}, labels[a & 3])) p = p->next;\n"

    def block(self, depth, indent):
        return "".join(self.statement(depth, indent) for _ in range(2 + int(self.chance.random() * 2)))

    def declarations(self, number):
        count = 1 + int(self.chance.random() * 6)
        fields = "".join(f"  {self.pick(self.FIELD_TYPES)} field_{i};\n" for i in range(count))
        return (f"typedef struct record_{number} {{\n{fields}}} record_{number};\n"
                f"enum kind_{number} {{ kind_{number}_none, kind_{number}_some = {number}, kind_{number}_all }};\n"
                f"extern int open_{number}(record_{number} *record, const char *name, unsigned long flags);\n"
                f"static inline int is_open_{number}(const record_{number} *record, enum kind_{number} kind) {{\n"
                f"  return record != 0 && kind == kind_{number}_some;\n}}\n")

    def function(self, number):
        name = f"compute_{number}"
        body = "".join(self.statement(2, 1) for _ in range(4))
        self.known.append(name)
        storage = "static " if self.chance.random() < 0.3 else ""
        return (f"{storage}int {name}(struct item *p, int n, int a) {{\n  int i = 0, b = n, c = a ^ {number};\n"
                f"{body}  return a + b * 3 + c;\n}}\n")

    def text(self, declarations, functions):
        declared = "".join(self.declarations(number) for number in range(declarations))
        bodies = "".join(self.function(number) for number in range(functions))
        calls = "".join(f"  sum += {name}(p, n, sum);\n" for name in self.known)
        return (f"{self.HEAD}{declared}{bodies}int all(struct item *p, int n) {{\n"
                f"  int sum = 0;\n{calls}  return sum;\n}}\n")


def prepare(directory, scale):
    """Writes the data of `scale` into a folder below `directory` where it is not there yet; returns the folder."""
    stamp = hashlib.sha256(pathlib.Path(__file__).read_bytes())
    for script in ("loop.sh", "script.py", "script.sql"):
        stamp.update((GUEST_SOURCES / script).read_bytes())
    data = pathlib.Path(directory) / f"data-{scale:g}-{stamp.hexdigest()[:12]}"
    if data.is_dir():
        return data
    for old in pathlib.Path(directory).glob(f"data-{scale:g}-*"):
        shutil.rmtree(old)
    say(f"making the programs' data, scale {scale:g}")
    partial = data.with_name("partial-data")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    text = make_text(max(10_000, round(TEXT_BYTES * scale)))
    (partial / "text").write_bytes(text)
    (partial / "short_text").write_bytes(text[:max(10_000, round(SHORT_TEXT_BYTES * scale))])
    source = CSource().text(round(C_DECLARATIONS * scale), max(3, round(C_FUNCTIONS * scale)))
    (partial / "source.c").write_text(source, encoding="utf-8")
    for script in ("loop.sh", "script.py", "script.sql"):
        source = (GUEST_SOURCES / script).read_text(encoding="utf-8")
        (partial / script).write_text(replaced(source, scale), encoding="utf-8")
    partial.rename(data)
    return data


def write_plan(path, chosen, scale):
    """The driver's list of steps (bench/guest/driver.c)."""
    lines = ["\t".join([workload.kind, workload.name, str(workload.repeats), str(workload.count), *workload.arguments])
             for workload in chosen]
    path.write_text(replaced("\n".join(lines) + "\n", scale), encoding="utf-8")
