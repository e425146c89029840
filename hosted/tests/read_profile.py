#!/usr/bin/env python3
"""What a profile says, as JSON: read with nothing of what wrote it.

    read_profile.py FILE.pb.gz

The format is https://github.com/google/pprof/blob/main/proto/profile.proto. For each function: the sums of all values over
the stacks that it is in (`total`), and over those whose innermost frame it is (`own`).
"""

import gzip
import json
import sys


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Pairs of a field's number and its value: a number, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
            assert len(value) == size, "cut off"
        else:
            raise ValueError(f"a field of kind {key & 7}")
        yield key >> 3, value


def numbers(value):
    """Numbers that are packed, or one that is not."""
    if isinstance(value, int):
        return [value]
    at, found = 0, []
    while at < len(value):
        number, at = varint(value, at)
        found.append(number)
    return found


def signed(number):
    return number - (1 << 64) if number >> 63 else number


def message(data):
    """A message whose fields come once each, but for those that are lists."""
    return dict(fields(data))


def main():
    with gzip.open(sys.argv[1]) as file:
        profile = list(fields(file.read()))

    def all_of(number):
        return [value for field, value in profile if field == number]

    strings = [text.decode() for text in all_of(6)]
    assert strings[0] == "", "the first string is none"
    types = [[strings[kind.get(1, 0)], strings[kind.get(2, 0)]] for kind in map(message, all_of(1))]
    functions = {f[1]: strings[f.get(2, 0)] for f in map(message, all_of(5))}
    mappings = {m[1]: m for m in map(message, all_of(3))}
    places = {}
    for location in all_of(4):
        head = message(location)
        lines = [functions[message(line)[1]] for field, line in fields(location) if field == 4]
        mapping = mappings.get(head.get(2, 0))
        if mapping:
            assert mapping[2] <= head[3] < mapping[3], "an address outside of its mapping"
        places[head[1]] = lines or [hex(head[3])]

    total, own, sums = {}, {}, [0] * len(types)
    for sample in all_of(2):
        stack, values = [], []
        for field, value in fields(sample):
            if field == 1:
                stack += [name for place in numbers(value) for name in places[place]]
            elif field == 2:
                values += [signed(number) for number in numbers(value)]
        assert len(values) == len(types), "a value for each type"
        sums = [one + other for one, other in zip(sums, values)]
        for table, names in [(total, set(stack)), (own, stack[:1])]:
            for name in names:
                table[name] = [one + other for one, other in zip(table.get(name, [0] * len(values)), values)]
    first = mappings.get(1, {})
    answer = {
        "types": types,
        "sums": sums,
        "total": total,
        "own": own,
        "period": dict(profile)[12],
        "default": strings[dict(profile)[14]],
        "program": strings[first.get(5, 0)],
        "build_id": strings[first.get(6, 0)],
    }
    print(json.dumps(answer))


main()
