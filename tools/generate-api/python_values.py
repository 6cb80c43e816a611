"""Writes packages/api/src/generated/python-values.fixture.json: what CPython makes of hyperparameter texts.

Run with the training image's Python (any CPython from 3.10 on gives the same file):

    python tools/generate-api/python_values.py

Each case holds a text as it stands in hyperparameters.json and the forms that its decoded value takes.
"""

import json
import pathlib
import random

TARGET = pathlib.Path(__file__).resolve().parents[2] / "packages/api/src/generated/python-values.fixture.json"

WRITTEN = [
    "adam", '"adam"', "", " ", "1", "-1", "0", "-0", "01", "1.", ".5", "+1", "1e3", "1E3", "-0.0", "1.0", "100000.0",
    "0.1", "1e-05", "0.0001", "0.00001", "1e15", "1e16", "123456789012345680.0", "1e22", "1e400", "-1e400", "5e-324",
    "2.5e-8", "9007199254740991", "9007199254740992", "-9007199254740993", "123456789012345678901234567890",
    "true", "false", "null", "True", "None", "NaN", "-NaN", "Infinity", "-Infinity", "nan", "inf", " 1 ", "\t[1]\n",
    "[1, 2]", "[1,]", "[]", "[ ]", "{}", "{ }", '{"a": 1}', '{"a":1,}', "{'a': 1}", '{"b": [1, 2.0], "a": {"z": null}}',
    '["a", "b"]', '["it\'s"]', '["it\'s \\"x\\""]', '"\\u00e9\\ud83d\\ude00"', '"é😀"', '"\\ud800"', '"\\u12"', '"\\x41"',
    '"a\\nb\\tc\\r\\u0000\\u007f\\u0080\\u00a0\\u200b\\ue000\\u2028"', '"a\nb"', '"unterminated', '"\\/"', "\ufeff1",
    '{"\\uffff": 1, "\\ud83d\\ude00": 2, "z": 3}', '{"a": 1, "a": 2}', '{"__proto__": "x"}', "[[[[]]]]", "1 2", "[1 2]",
    "/opt/ml/model", "s3://bucket/key", '"s3://bucket/key"', "k=v,k2=v2", "[true, false, null]", "１", "1_000", "0x10",
    '"\\\\"', '["\\\\", "\\""]', "[NaN, Infinity, -Infinity]", "{1: 2}", '{"a" : [ ] , "b" : { } }',
]


def randomly(rng):
    for _ in range(150):
        mantissa = rng.choice([rng.random(), rng.randrange(10**6), rng.randrange(10**17)])
        yield json.dumps(float(mantissa) * 10.0 ** rng.randrange(-320, 300))
    for _ in range(60):
        yield json.dumps(rng.random() * 10.0 ** rng.randrange(-7, 19))
    for _ in range(40):
        yield json.dumps("".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x250), rng.randrange(0x3000)])) for _ in range(6)))


def forms(text):
    try:
        value, decoded = json.loads(text), True
    except ValueError:
        value, decoded = text, False
    return {
        "text": text,
        "decoded": decoded,
        "json": json.dumps(value),
        "compact": json.dumps(value, sort_keys=True, separators=(",", ":")),
        "repr": repr(value),
        "str": str(value),
    }


def main():
    cases = [forms(text) for text in [*WRITTEN, *randomly(random.Random(20261124))]]
    # One case a line, in ASCII because some hold lone surrogates.
    lines = ",\n".join(json.dumps(case) for case in cases)
    TARGET.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
