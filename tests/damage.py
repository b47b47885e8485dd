"""Files with bits flipped and ends cut off, each by the number that says how."""

import random


def damaged(whole, number):
    """The content of a file, damaged: one in five is cut off, the others have 1 to 16 bits flipped."""
    chance = random.Random(number)
    if chance.random() < 0.2:
        return whole[: chance.randrange(len(whole))]
    content = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def check_refused_or_read(read, path, count, before=lambda numbers: None):
    """Of `count` damaged files each is read, as another number may have become, or refused by ValueError.

    before : is called with some hundred numbers at a time, before their files are read.
    """
    whole, refused = path.read_bytes(), 0
    other = path.with_name("damaged")
    for start in range(0, count, 100):
        numbers = range(start, min(start + 100, count))
        before(numbers)
        for number in numbers:
            other.write_bytes(damaged(whole, number))
            try:
                read(other)
            except ValueError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"damage {number} of {path.name}") from error
    assert refused > count / 20
