"""A mix of what scripts do: text, dictionaries, sorting, objects, recursion, numbers. Argument: how often."""
import sys


class Account:
    def __init__(self, owner, balance):
        self.owner = owner
        self.balance = balance

    def pay(self, other, amount):
        if self.balance < amount:
            return False
        self.balance -= amount
        other.balance += amount
        return True


def words(seed, count):
    text = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        text.append("word" + str(seed % 997))
    return " ".join(text)


def count_words(text):
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]


def queens(size, row=0, columns=0, rising=0, falling=0):
    if row == size:
        return 1
    found = 0
    for column in range(size):
        bits = 1 << column, 1 << (row + column), 1 << (row - column + size)
        if not (columns & bits[0] or rising & bits[1] or falling & bits[2]):
            found += queens(size, row + 1, columns | bits[0], rising | bits[1], falling | bits[2])
    return found


def payments(count):
    accounts = [Account(f"owner {number}", 1000) for number in range(50)]
    refused = sum(not accounts[i * 7 % 50].pay(accounts[i * 13 % 50], i % 90) for i in range(count))
    return refused, max(account.balance for account in accounts)


def primes(limit):
    sieve = bytearray([1]) * limit
    for n in range(2, int(limit ** 0.5) + 1):
        if sieve[n]:
            sieve[n * n::n] = bytes(len(range(n * n, limit, n)))
    return sum(sieve) - 2


for turn in range(int(sys.argv[1])):
    print(count_words(words(turn, 6000))[:3], queens(6), payments(8000), primes(20000))
    print(sum(x * x % 7 for x in range(8000)), "".join(chr(97 + x % 26) for x in range(2000)).count("xyz"))
