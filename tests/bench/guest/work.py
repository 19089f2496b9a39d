# SPDX-License-Identifier: MIT
"""work.py FILE - dictionaries, big numbers, objects; for the CPU benchmark."""
import sys

count = {}
for line in open(sys.argv[1]):
    for word in line.split():
        count[word] = count.get(word, 0) + 1
top = sorted(count.items(), key=lambda kv: (-kv[1], kv[0]))[:20]
print(*(f"{w} {n}" for w, n in top), sep="\n")


class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None


def insert(root, key):
    while root.key != key:
        side = "left" if key < root.key else "right"
        if getattr(root, side) is None:
            setattr(root, side, Node(key))
        root = getattr(root, side)


def depth(node):
    return 1 + max(depth(node.left), depth(node.right)) if node else 0


tree, r = Node(1 << 31), 1
for _ in range(4000):
    r = (r * 1664525 + 1013904223) & 0xFFFFFFFF
    insert(tree, r)
print(len(count), depth(tree), pow(7, 10**4, 2**521 - 1), 3**2000 % 10**40)
print(sum(i * 0.5 - i / 3 for i in range(60000)))
